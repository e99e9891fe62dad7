/** As much of SVG as the plots take. Colours follow the reader's preference for light or dark; the ground is left to the page. */

import type { EngineName } from './engine.ts'

export const FONT_SIZE = 12

const STYLE = `
text { font: ${FONT_SIZE}px system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #24292f }
.title { font-weight: 600; font-size: 13px }
.quiet { fill: #57606a }
.grid { stroke: #d0d7de; stroke-width: 1 }
.mark { stroke: #24292f; stroke-width: 2 }
.line { fill: none; stroke-width: 2 }
.mamba-wasm { stroke: #0969da; fill: #0969da }
.node-llama-cpp { stroke: #bc4c00; fill: #bc4c00 }
.wllama { stroke: #1a7f37; fill: #1a7f37 }
rect { stroke: none !important }
.line { fill: none !important }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .quiet { fill: #9198a1 }
  .grid { stroke: #3d444d }
  .mark { stroke: #e6edf3 }
  .mamba-wasm { stroke: #4493f8; fill: #4493f8 }
  .node-llama-cpp { stroke: #f0883e; fill: #f0883e }
  .wllama { stroke: #3fb950; fill: #3fb950 }
}`

export interface Size {
  readonly width: number
  readonly height: number
}

export function svgOf({ width, height }: Size, title: string, parts: readonly string[]): string {
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img">
<title>${escaped(title)}</title>
<style>${STYLE}
</style>
${parts.join('\n')}
</svg>
`
}

export interface TextOptions {
  readonly anchor?: 'start' | 'middle' | 'end'
  readonly className?: string
}

export function text(x: number, y: number, content: string, { anchor = 'start', className }: TextOptions = {}): string {
  const classed = className === undefined ? '' : ` class="${className}"`
  return `<text x="${at(x)}" y="${at(y)}" text-anchor="${anchor}"${classed}>${escaped(content)}</text>`
}

export function line(from: readonly [number, number], to: readonly [number, number], className: string): string {
  return `<line x1="${at(from[0])}" y1="${at(from[1])}" x2="${at(to[0])}" y2="${at(to[1])}" class="${className}"/>`
}

export function rect({ x, y, width, height }: Size & { readonly x: number; readonly y: number }, className: string): string {
  return `<rect x="${at(x)}" y="${at(y)}" width="${at(width)}" height="${at(height)}" class="${className}"/>`
}

/** A line through points, with a dot at each. */
export function path(points: readonly (readonly [number, number])[], className: string): string {
  const dots = points.map(([x, y]) => `<circle cx="${at(x)}" cy="${at(y)}" r="3" class="${className}"/>`)
  return [`<polyline points="${points.map(([x, y]) => `${at(x)},${at(y)}`).join(' ')}" class="${className} line"/>`, ...dots].join('\n')
}

/** Names of the engines in their colours, in a row. */
export function legend(x: number, y: number, engines: readonly EngineName[]): string {
  const parts: string[] = []
  let left = x
  for (const engine of engines) {
    parts.push(rect({ x: left, y: y - 9, width: 10, height: 10 }, engine), text(left + 15, y, engine))
    left += 36 + 7.2 * engine.length
  }
  return parts.join('\n')
}

function at(value: number): string {
  return String(Math.round(10 * value) / 10)
}

function escaped(content: string): string {
  return content.replace(/[&<>]/g, (character) => `&#${character.charCodeAt(0)};`)
}
