// A module of the sources by itself, for tests of modules that the package does not export.
import { build } from "esbuild";

export async function sourceOf(path) {
  const built = await build({ entryPoints: [path], bundle: true, format: "esm", write: false });
  return import(`data:text/javascript,${encodeURIComponent(built.outputFiles[0].text)}`);
}
