// Shows panels as Grafana does, by its own package @grafana/data: transformations, field settings,
// names and texts of cells, links. For tests/integration/test_grafana_packages.py.
//
//     node grafana_panels.cjs FOLDER < panels.ndjson
//
// FOLDER has node_modules with @grafana/data and jsdom. A line in is {panel, frames: [{refId, fields:
// [{name, type, labels, values}]}]}, a line out {frames: [{names, hidden, texts, links}]}: texts and
// links are those of the first row, links by column.
"use strict";
const path = require("node:path");
const load = (name) => require(path.join(process.argv[2], "node_modules", name));

const { window } = new (load("jsdom").JSDOM)("", { url: "http://127.0.0.1/" });
for (const name of ["document", "navigator", "HTMLElement", "Node", "Element", "MutationObserver"]) {
  Object.defineProperty(globalThis, name, { value: window[name], configurable: true });
}
globalThis.window = window;
window.grafanaBootData = { settings: { featureToggles: {} } };
const data = load("@grafana/data");
const { lastValueFrom, map } = load("rxjs");

// What the panels' plugins and Grafana's app register; how a property is processed.
const PROCESSED = {
  displayName: data.displayNameOverrideProcessor,
  unit: data.unitOverrideProcessor,
  thresholds: data.thresholdsOverrideProcessor,
  mappings: data.valueMappingsOverrideProcessor,
  links: data.dataLinksOverrideProcessor,
};
const property = (id, isCustom) => ({
  id,
  path: isCustom ? id.replace("custom.", "") : id,
  name: id,
  isCustom,
  process: PROCESSED[id] ?? data.identityOverrideProcessor,
  shouldApply: () => true,
  settings: { expandTemplateVars: id === "displayName" },
});
const OWN = ["min", "max", "decimals", "noValue", "color", ...Object.keys(PROCESSED)];
const CUSTOM = ["hidden", "cellOptions", "lineStyle", "fillBelowTo", "transform", "axisPlacement"];
const registry = new data.Registry(() => [
  ...OWN.map((id) => property(id, false)),
  ...CUSTOM.map((id) => property(`custom.${id}`, true)),
]);

// Not in the package: each query named by configRefId gives its unit to the fields that match.
const configFromData = {
  id: "configFromData",
  name: "configFromData",
  defaultOptions: {},
  operator: (options) => (source) =>
    source.pipe(
      map((frames) => {
        const told = frames.find((frame) => frame.refId === options.configRefId);
        const applies = data.getFieldMatcher(options.applyTo);
        const unit = told.fields.find((field) => field.name === "unit").values[0];
        return frames
          .filter((frame) => frame !== told)
          .map((frame) => ({
            refId: frame.refId,
            length: frame.length,
            fields: frame.fields.map((field) =>
              applies(field, frame, frames) ? { ...field, config: { ...field.config, unit } } : field
            ),
          }));
      })
    ),
};
const transformations = [configFromData, data.standardTransformers.organizeFieldsTransformer];
data.standardTransformersRegistry.setInit(() =>
  transformations.map(({ name, ...made }) => ({
    id: made.id,
    name,
    // A function in Grafana 13, the transformation itself before.
    transformation: Object.assign(() => Promise.resolve(made), made),
  }))
);

// Values of the row, of the field and its labels; the dashboard's variables stay as they are.
function replace(text, scoped, byDefault) {
  const context = scoped?.__dataContext?.value;
  return text.replace(/\$\{__(data|field|value)\.([^:}]+)(?::(\w+))?\}/g, (whole, kind, name, format) => {
    if (!context) return whole;
    const { frame, field, rowIndex } = context;
    const part = name.slice(name.indexOf(".") + 1);
    let value = "";
    if (kind === "data") value = data.getFieldDisplayValuesProxy({ frame, rowIndex })[part];
    if (kind === "field") value = field.labels?.[part] ?? "";
    if (kind === "value") value = field.values[rowIndex];
    if (value === undefined) return whole;
    const written = format ?? byDefault;
    if (written === "percentencode") return encodeURIComponent(String(value));
    return written === "uriencode" ? encodeURI(String(value)) : String(value);
  });
}

async function shown({ panel, frames }) {
  const made = frames.map((frame) => data.toDataFrame({ name: frame.refId, ...frame }));
  const changed = await lastValueFrom(
    data.transformDataFrame(panel.transformations ?? [], made, { interpolate: (text) => text })
  );
  const done = data.applyFieldOverrides({
    data: changed,
    fieldConfig: panel.fieldConfig,
    fieldConfigRegistry: registry,
    replaceVariables: replace,
    theme: data.createTheme(),
    timeZone: "utc",
  });
  const first = (field) => data.formattedValueToString(field.display(field.values[0]));
  return {
    frames: done.map((frame) => ({
      names: frame.fields.map((field) => data.getFieldDisplayName(field, frame, done)),
      hidden: frame.fields.map((field) => field.config.custom?.hidden === true),
      texts: frame.fields.map((field) => (frame.length ? first(field) : "")),
      links: frame.fields.map((field) =>
        frame.length ? field.getLinks({ valueRowIndex: 0 }).map((link) => link.href) : []
      ),
    })),
  };
}

(async () => {
  const lines = require("node:fs").readFileSync(0, "utf8").split("\n").filter(Boolean);
  for (const line of lines) console.log(JSON.stringify(await shown(JSON.parse(line))));
})();
