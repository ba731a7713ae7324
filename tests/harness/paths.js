// Where things are: the folder of this package, the binaries under test, the artifacts.

import {existsSync, mkdirSync} from 'node:fs';
import {dirname, join, resolve} from 'node:path';
import {fileURLToPath} from 'node:url';

/** The folder of the test package. */
export const TESTS = resolve(dirname(fileURLToPath(import.meta.url)), '..');
/** The root of the repository. */
export const ROOT = resolve(TESTS, '..');
/** Logs of failed servers and screenshots land here; continuous integration keeps them. */
export const ARTIFACTS = join(TESTS, 'artifacts');

/** Makes the folder of artifacts and returns the path of one in it. */
export function artifact(name) {
  mkdirSync(ARTIFACTS, {recursive: true});
  return join(ARTIFACTS, name);
}

/** The `kelvin` binary: `KELVIN_BIN`, or what `cargo build` left in the target folder. */
export function kelvinBinary() {
  const target = process.env.CARGO_TARGET_DIR ?? join(ROOT, 'target');
  const binary = resolve(process.env.KELVIN_BIN ?? join(target, 'debug', 'kelvin'));
  if (!existsSync(binary)) {
    throw new Error(`no kelvin binary at ${binary}: run scripts/test, or set KELVIN_BIN`);
  }
  return binary;
}
