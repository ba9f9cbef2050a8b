// Bundles each entry; modules of several entries become one chunk. Types come from tsc.
import { createHash } from "node:crypto";
import { cpSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

for (const old of readdirSync("dist")) if (/\.js(\.map)?$/.test(old)) rmSync(`dist/${old}`);
cpSync("../../LICENSE", "LICENSE");

const sources = createHash("sha256");
for (const name of readdirSync("src").sort()) sources.update(readFileSync(`src/${name}`));

await build({
  entryPoints: { index: "src/index.ts", inbox: "src/element.ts", react: "src/react.ts" },
  external: ["react"],
  outdir: "dist",
  bundle: true,
  splitting: true, // a page loads the transports over HTTP and the sharing of tabs when it needs them
  chunkNames: "[name]-[hash]",
  format: "esm",
  target: "es2022",
  minify: true,
  mangleProps: /^_/, // members that the package alone uses
  define: { BUILD: JSON.stringify(sources.digest("hex").slice(0, 8)) },
  sourcemap: true,
});
for (const file of readdirSync("dist").filter((name) => name.endsWith(".js"))) {
  console.log(`${file}: ${gzipSync(readFileSync(`dist/${file}`), { level: 9 }).length} bytes gzipped`);
}
