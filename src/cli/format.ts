/** Numbers as people read them. */

/** 143339 → `143,339`. */
export function formatCount(count: number): string {
  return Math.round(count).toLocaleString('en-US')
}

/** A figure per second: one decimal below 100, where it matters. */
export function formatRate(perSecond: number): string {
  return perSecond < 100 ? perSecond.toFixed(1) : formatCount(perSecond)
}

const BYTE_UNITS = ['B', 'kB', 'MB', 'GB', 'TB']

/** Decimal units: 15873704 → `15.9 MB`. */
export function formatBytes(bytes: number): string {
  let value = bytes
  let unit = 0
  // 999.95 would be shown as 1000.0.
  while (value >= 999.95 && unit < BYTE_UNITS.length - 1) {
    value /= 1000
    unit++
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${BYTE_UNITS[unit]}`
}

/** `8 s`, `2 min 05 s`, `1 h 02 min`. */
export function formatDuration(elapsedMs: number): string {
  const seconds = Math.ceil(elapsedMs / 1000)
  if (seconds < 60) return `${seconds} s`
  const minutes = Math.floor(seconds / 60)
  return minutes < 60 ? `${minutes} min ${twoDigits(seconds % 60)} s` : `${Math.floor(minutes / 60)} h ${twoDigits(minutes % 60)} min`
}

function twoDigits(value: number): string {
  return String(value).padStart(2, '0')
}

/** Columns aligned by their widest cell, two spaces between them; `right` names the columns that are flush right. */
export function formatTable(rows: readonly (readonly string[])[], right: readonly number[] = []): string {
  const widths: number[] = []
  for (const row of rows) for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, cell.length)
  const line = (row: readonly string[]): string =>
    row.map((cell, i) => (right.includes(i) ? cell.padStart(widths[i]) : cell.padEnd(widths[i]))).join('  ').trimEnd()
  return rows.map((row) => `${line(row)}\n`).join('')
}
