/** What the linter asks of `mobile/` and `explorer/`: typescript-eslint's strict rules, which know the types. */
export function checked(tseslint, tsconfigRootDir, project) {
  return [
    { ignores: ["dist/", "public/", ".made/"] },
    { linterOptions: { reportUnusedDisableDirectives: "error" } },
    ...tseslint.configs.strictTypeChecked,
    {
      files: ["**/*.ts"],
      languageOptions: { parserOptions: { project, tsconfigRootDir } },
      rules: {
        // A number in a text is what most templates are for.
        "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true }],
        // `() => nothing()` is shorter than braces around it, and as clear.
        "@typescript-eslint/no-confusing-void-expression": ["error", { ignoreArrowShorthand: true }],
        // Every read of a typed array may be undefined to the compiler (`noUncheckedIndexedAccess`), and is not in a loop.
        "@typescript-eslint/no-non-null-assertion": "off",
        // Without `await`, `async` still makes a rejection of what is thrown, as an interface of promises has it.
        "@typescript-eslint/require-await": "off",
        // `{ [field]: left, ...rest }` is how an object without a field is made.
        "@typescript-eslint/no-unused-vars": ["error", { ignoreRestSiblings: true }],
      },
    },
    { files: ["**/*.js"], ...tseslint.configs.disableTypeChecked },
  ];
}
