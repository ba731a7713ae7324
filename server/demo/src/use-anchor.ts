import {useLayoutEffect, useRef, type RefObject} from 'react';

/**
 * Keeps what the reader looks at in its place while rows come and go above it. At the top of the
 * list nothing is kept: there the reader watches what arrives.
 */
export function useAnchor(
  scroller: RefObject<HTMLElement | null>,
  rows: readonly {id: string}[],
  rowHeight: number,
): void {
  const before = useRef<readonly {id: string}[]>([]);
  useLayoutEffect(() => {
    const old = before.current;
    before.current = rows;
    const element = scroller.current;
    if (!element || old === rows || element.scrollTop < rowHeight) return;
    const first = Math.floor(element.scrollTop / rowHeight);
    const visible = old.slice(first, first + Math.ceil(element.clientHeight / rowHeight));
    const now = new Map(rows.map((row, index) => [row.id, index]));
    const moves = visible
      .map((row, index) => (now.get(row.id) ?? Number.NaN) - (first + index))
      .filter(move => !Number.isNaN(move))
      .toSorted((a, b) => a - b);
    // The middle one: a row that changed itself may have jumped far away.
    const move = moves[Math.floor(moves.length / 2)] ?? 0;
    if (move !== 0) element.scrollTop += move * rowHeight;
  }, [rows, rowHeight, scroller]);
}
