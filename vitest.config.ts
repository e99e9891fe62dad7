import { configDefaults, defineConfig } from 'vitest/config'

/** Tests of minutes: `npm run test:all` runs them too. */
const LONG_TESTS = 'test/**/*.long.test.ts'

// "source" makes "#platform" resolve to the TypeScript file (package.json, imports).
const conditions = ['source', 'node', 'import', 'default']

export default defineConfig({
  resolve: { conditions },
  ssr: { resolve: { conditions } },
  test: {
    include: ['test/**/*.test.ts'],
    exclude: [...configDefaults.exclude, LONG_TESTS],
    execArgv: ['--conditions=source'],
    testTimeout: 60_000,
    coverage: { provider: 'v8', include: ['src/**/*.ts'], reporter: ['text-summary'] }
  }
})
