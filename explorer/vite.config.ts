import { defineConfig } from "vitest/config";

export default defineConfig({
  // Relative addresses: any folder of any static host will do.
  base: "./",
  build: {
    target: "es2022",
    // Committed, and part of the wheel: a Python install without node publishes it.
    outDir: "../tasks/explorer/page",
    emptyOutDir: true,
    reportCompressedSize: false,
    modulePreload: { polyfill: false },
    rollupOptions: {
      output: { entryFileNames: "assets/explorer.js", assetFileNames: "assets/explorer[extname]" },
    },
  },
  server: { fs: { allow: [".."] } },
  test: {
    projects: [
      { extends: true, test: { name: "unit", include: ["tests/unit/**/*.test.ts"] } },
      {
        extends: true,
        test: {
          name: "browser",
          include: ["tests/browser/**/*.test.ts"],
          testTimeout: 60_000,
          hookTimeout: 60_000,
          expect: { poll: { timeout: 20_000, interval: 50 } },
          poolOptions: { forks: { singleFork: true } },
        },
      },
    ],
  },
});
