/** Elements of this page by id or class, with their type. */

export function byId<T extends HTMLElement>(id: string, type: new () => T): T {
  const element = document.getElementById(id)
  if (!(element instanceof type)) throw new Error(`no ${type.name} of id ${id}`)
  return element
}

export function within<T extends HTMLElement>(parent: ParentNode, selector: string, type: new () => T): T {
  const element = parent.querySelector(selector)
  if (!(element instanceof type)) throw new Error(`no ${type.name} for ${selector}`)
  return element
}

export function formatBytes(bytes: number): string {
  const units = ['bytes', 'KB', 'MB', 'GB'] as const
  const unit = bytes < 1000 ? 0 : Math.min(3, Math.floor(Math.log10(bytes) / 3))
  const value = bytes / 1000 ** unit
  return `${value.toFixed(unit === 0 || value >= 100 ? 0 : 1)} ${units[unit]}`
}

export function formatCount(count: number): string {
  return count.toLocaleString('en')
}
