/** Addresses of files on the web. */
import { describe, messageOf } from '../errors.ts'

/** An absolute http or https address as a URL of its own. Throws a TypeError for anything else. */
export function parseHttpUrl(address: URL | string): URL {
  const url = URL.canParse(String(address)) ? new URL(address) : undefined
  if (url !== undefined && (url.protocol === 'http:' || url.protocol === 'https:')) return url
  throw new TypeError(messageOf({ place: 'address', expected: 'an absolute http or https address', got: describe(String(address)) }))
}

/** An address for messages: without user, query and fragment, which may hold secrets. */
export function publicName(url: URL): string {
  return url.origin + url.pathname
}
