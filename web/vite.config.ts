import { createHash } from "node:crypto";
import { fileURLToPath } from "node:url";
import type { Plugin } from "vite";
import { defineConfig } from "vitest/config";

/** Writes into the page the digest of each script and style, so that a server can allow exactly these and no others. */
function integrity(): Plugin {
  return {
    name: "integrity",
    enforce: "post",
    generateBundle: {
      order: "post", // when nothing changes a script any more
      handler(_options, bundle) {
        const page = bundle["index.html"];
        if (page?.type !== "asset") throw new Error("there is no page");
        page.source = page.source.toString().replace(/<(?:script|link)\b[^>]*? crossorigin\b[^>]*>/g, (tag) => {
          const file = /\b(?:src|href)="\/([^"]+)"/.exec(tag)?.[1] ?? "";
          const made = bundle[file];
          if (made === undefined) throw new Error(`the page names ${file}, which was not built`);
          const content = made.type === "chunk" ? made.code : made.source;
          const digest = createHash("sha384").update(content).digest("base64");
          return tag.replace(" crossorigin", ` integrity="sha384-${digest}"`);
        });
      },
    },
  };
}

export default defineConfig({
  root: fileURLToPath(new URL(".", import.meta.url)),
  plugins: [integrity()],
  build: {
    target: "es2023",
    outDir: "../src/strongroom/app/web/static",
    emptyOutDir: true,
    assetsInlineLimit: 0, // nothing from a `data:` address: the page's policy allows none
    modulePreload: { polyfill: false },
    rolldownOptions: {
      output: { codeSplitting: false },
      onLog(level, log, handle) {
        // @hpke/common asks for Node's `crypto` only where there is no WebCrypto
        if (!log.message.startsWith('Module "crypto" has been externalized')) handle(level, log);
      },
    },
  },
  test: { include: ["test/**/*.test.ts"] },
});
