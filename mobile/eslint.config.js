import { fileURLToPath } from "node:url";

import tseslint from "typescript-eslint";

import { checked } from "./lint.js";

export default checked(tseslint, fileURLToPath(new URL(".", import.meta.url)), ["tsconfig.json", "tsconfig.workers.json", "tsconfig.tools.json"]);
