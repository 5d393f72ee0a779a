import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";

/** One script for the test in a browser; `tests/test_web_verifier.py` says where to. */
export default defineConfig({
  build: {
    lib: { entry: fileURLToPath(new URL("entry.ts", import.meta.url)), formats: ["iife"], name: "entry", fileName: "entry" },
    target: "es2023",
    minify: false,
  },
});
