"""How the engine is configured, and what it may do at all, whoever asks."""

from __future__ import annotations

from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

from exporter.store.server.folder import Folder

# Statistics of all columns, which the optimizer hardly needs, are a quarter of the cost of merges;
# and merges of more parts at once write each row less often (docs/explanation/storage.md).
_CONFIG: Final = """<clickhouse>
  <timezone>UTC</timezone>
  <display_name>flow-exporter store</display_name>
  <users_config>{folder}/users.xml</users_config>
  <max_server_memory_usage>{memory_bytes}</max_server_memory_usage>
  <backups><allowed_disk>backups</allowed_disk></backups>
  <remote_url_allow_hosts><host>nothing.invalid</host></remote_url_allow_hosts>
  <merge_tree>
    <auto_statistics_types></auto_statistics_types>
    <merge_selector_base>50</merge_selector_base>
  </merge_tree>
  <storage_configuration><disks>
    <backups><type>local</type><path>{data_dir}/backups/</path></backups>
  </disks></storage_configuration>
</clickhouse>
"""

#: Engines of tables that keep their data here, or have none.
_TABLE_ENGINES: Final = (
    "MergeTree", "ReplacingMergeTree", "SummingMergeTree", "AggregatingMergeTree",
    "CollapsingMergeTree", "VersionedCollapsingMergeTree", "CoalescingMergeTree", "Memory", "Null",
    "Set", "Join", "Buffer", "Merge", "Log", "TinyLog", "StripeLog", "GenerateRandom",
)  # fmt: skip

#: Settings that nobody may change: they name files and servers, disks of tables elsewhere, or let
#: text that no guard has seen become a statement.
_FIXED: Final = (
    "output_format_schema", "format_template_row", "format_template_resultset",
    "format_avro_schema_registry_url", "output_format_avro_confluent_subject", "dialect",
    "allow_experimental_eval_table_function", "merge_tree_disk", "merge_tree_storage_policy",
)  # fmt: skip

# The engine runs everything as this one user. It may not read files, URLs or other servers:
# no grant of SOURCES but the disk of backups, and none of dictionaries, whose sources need no
# grant, commands among them. Expressions are not compiled to machine code: that takes a tenth of a
# second each, of every start anew, and makes nothing here faster.
_USERS: Final = """<clickhouse>
  <profiles><default>
    <compile_expressions>0</compile_expressions>
    <compile_aggregate_expressions>0</compile_aggregate_expressions>
    <compile_sort_description>0</compile_sort_description>
    <constraints>
{fixed}
    </constraints>
  </default></profiles>
  <quotas><default/></quotas>
  <users><default>
    <password></password>
    <networks><ip>::1</ip><ip>127.0.0.1</ip></networks>
    <profile>default</profile>
    <quota>default</quota>
    <grants>
      <query>GRANT SHOW, SELECT, INSERT, ALTER, CREATE DATABASE, CREATE TABLE, CREATE VIEW,
        DROP, UNDROP TABLE, TRUNCATE, OPTIMIZE,
        BACKUP, KILL QUERY, SYSTEM, dictGet, INTROSPECTION ON *.*</query>
{engines}
      <query>GRANT READ, WRITE ON DISK</query>
    </grants>
  </default></users>
</clickhouse>
"""


def write_config(folder: Folder, memory_bytes: int) -> Path:
    """Write the engine's configuration, and return the file that it begins with.

    ``memory_bytes`` bounds the engine as a whole; 0: by the machine's memory.

    Raises:
        OSError: it cannot be written.
    """
    engines = (f"<query>GRANT TABLE ENGINE ON {name}</query>" for name in _TABLE_ENGINES)
    fixed = (f"<{name}><const/></{name}>" for name in _FIXED)
    users = _USERS.format(engines="\n".join(engines), fixed="\n".join(fixed))
    _write(folder.config / "users.xml", users)
    config = _CONFIG.format(
        folder=escape(str(folder.config)),
        data_dir=escape(str(folder.path)),
        memory_bytes=memory_bytes,
    )
    return _write(folder.config / "config.xml", config)


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    return path
