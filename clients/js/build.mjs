// Bundles each entry; what several share becomes one chunk. Types come from tsc.
import { cpSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

for (const old of readdirSync("dist")) if (/\.js(\.map)?$/.test(old)) rmSync(`dist/${old}`);
cpSync("../../LICENSE", "LICENSE");
await build({
  entryPoints: ["src/index.ts"],
  outdir: "dist",
  bundle: true,
  splitting: true, // a page loads the transports over HTTP and the sharing of tabs when it needs them
  chunkNames: "[name]-[hash]",
  format: "esm",
  target: "es2022",
  minify: true,
  sourcemap: true,
});
for (const file of readdirSync("dist").filter((name) => name.endsWith(".js"))) {
  console.log(`${file}: ${gzipSync(readFileSync(`dist/${file}`), { level: 9 }).length} bytes gzipped`);
}
