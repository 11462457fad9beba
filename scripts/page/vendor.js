/* Bundle NiiVue and what it imports into one minified module, with the licences of all of it.

`npm ci` has verified the hashes of the packages (package-lock.json). Decompressors of Zarr volumes are left out: the
page reads NIfTI only, and they would need WebAssembly, which the page's security policy forbids. */

import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { build } from "esbuild";

const [target] = process.argv.slice(2);
if (!target) throw new Error("usage: node vendor.js FOLDER");

/** @param {string} name */
const described = (name) => JSON.parse(readFileSync(join("node_modules", name, "package.json"), "utf8"));
const { version } = described("@niivue/niivue");

const { metafile } = await build({
  stdin: { contents: 'export { Niivue, NVImage } from "@niivue/niivue";', resolveDir: "." },
  outfile: join(target, `niivue-${version}.min.js`),
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  external: ["numcodecs/*"],
  legalComments: "none",
  metafile: true,
});

const [output] = Object.values(metafile.outputs);
const used = Object.entries(output.inputs).filter(([, { bytesInOutput }]) => bytesInOutput > 0).map(([path]) => path);
const names = new Set(used.map((path) => path.match(/node_modules\/((?:@[^/]+\/)?[^/]+)\//)?.[1]).filter((name) => name));
const texts = [...names].sort().map((name) => {
  const folder = join("node_modules", String(name));
  const { version, license } = described(String(name));
  const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
  const text = file ? readFileSync(join(folder, file), "utf8") : readFileSync("licence-niivue.txt", "utf8");
  if (!file && name !== "@niivue/niivue") throw new Error(`${name} has no licence file`);
  return `${name} ${version} (${license})\n\n${text.trim()}\n`;
});
writeFileSync(join(target, "LICENCES.txt"), texts.join(`\n${"-".repeat(80)}\n\n`));
