import { defineConfig } from 'vitest/config'

export default defineConfig({
  // "source" makes "#platform" resolve to the TypeScript file (package.json, imports).
  ssr: { resolve: { conditions: ['source', 'node', 'import', 'default'] } },
  resolve: { conditions: ['source', 'node', 'import', 'default'] },
  test: {
    include: ['test/**/*.test.ts'],
    execArgv: ['--conditions=source'],
    testTimeout: 60_000,
    coverage: { provider: 'v8', include: ['src/**/*.ts'], reporter: ['text-summary'] }
  }
})
