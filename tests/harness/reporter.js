// Prints what failed in full and what passed in one line a suite and test, so that a run of
// thousands of comparisons stays readable; closes with the runner's own counts.

/** @param {AsyncIterable<any>} source events of node's test runner */
export default async function* reporter(source) {
  for await (const {type, data} of source) {
    if (type === 'test:diagnostic' && data.nesting === 0 && data.file === undefined) {
      yield `ℹ ${data.message}\n`;
    } else if (type === 'test:fail') {
      yield* failure(data);
    } else if (type === 'test:pass' && data.nesting <= 1) {
      const ms = Math.round(data.details.duration_ms);
      const skipped = data.skip === undefined ? '' : ` (skipped${why(data.skip)})`;
      yield `${'  '.repeat(data.nesting)}✔ ${data.name} (${ms} ms)${skipped}\n`;
    } else if (type === 'test:stdout' || type === 'test:stderr') {
      yield data.message;
    }
  }
}

function why(reason) {
  return typeof reason === 'string' ? `: ${reason}` : '';
}

function* failure({name, nesting, details, file}) {
  const error = details.error;
  // The parent of a failed test only repeats that.
  if (error?.failureType === 'subtestsFailed') return;
  const pad = '  '.repeat(nesting);
  yield `${pad}✖ ${name} [${file?.split('/').at(-1)}]\n`;
  const cause = error?.cause ?? error;
  const text = cause?.stack ?? cause?.message ?? String(cause);
  const lines = text.slice(0, 6000).split('\n');
  const own = lines.filter(line => !/^\s+at .*(node:internal|node_modules)/.test(line));
  yield `${own.map(line => `${pad}    ${line}`).join('\n')}\n`;
}
