import {useEffect, useRef, useState} from 'react';
import type {IssueRow} from './queries.ts';

/** Issues modified up to this long before they first appear count as having just changed. */
const FRESH_MS = 8_000;
/** How long a row stays marked; matches the animation in list.css. */
const MARK_MS = 1_600;
/** Rows remembered to tell a change from a first sight. */
const MAX_KNOWN = 20_000;

function signature(row: IssueRow): string {
  const labels = row.labels.map(l => l.id).join();
  return [row.title, row.state, row.priority, row.assigneeID, row.modified, row.commentCount, labels]
    .join('\u0000');
}

/** Which rows changed a moment ago, and how many changes were seen since the page was loaded. */
export function useChanges(rows: readonly IssueRow[]): {marked: ReadonlySet<string>; count: number} {
  const known = useRef(new Map<string, string>());
  const [marked, setMarked] = useState<ReadonlySet<string>>(new Set());
  const [count, setCount] = useState(0);
  useEffect(() => {
    const changed: string[] = [];
    const fresh = Date.now() - FRESH_MS;
    if (known.current.size > MAX_KNOWN) known.current.clear();
    for (const row of rows) {
      const now = signature(row);
      const before = known.current.get(row.id);
      if (before === now) continue;
      if (before !== undefined || (known.current.size > 0 && row.modified > fresh)) {
        changed.push(row.id);
      }
      known.current.set(row.id, now);
    }
    if (changed.length === 0) return;
    setCount(c => c + changed.length);
    setMarked(old => new Set([...old, ...changed]));
    setTimeout(() => {
      setMarked(old => {
        const next = new Set(old);
        for (const id of changed) next.delete(id);
        return next;
      });
    }, MARK_MS);
  }, [rows]);
  return {marked, count};
}
