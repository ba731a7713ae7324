import {useEffect, useRef} from 'react';

/** Runs the action of a single key, unless the key is meant for a field the user is in. */
export function useKeys(actions: Readonly<Record<string, () => void>>): void {
  const latest = useRef(actions);
  latest.current = actions;
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
      const target = event.target as HTMLElement | null;
      const inField = target?.closest('input, textarea, select, [contenteditable]');
      if (inField) {
        if (event.key === 'Escape') (target as HTMLElement).blur();
        return;
      }
      const action = latest.current[event.key];
      if (!action) return;
      event.preventDefault();
      action();
    };
    window.addEventListener('keydown', onKey);
    return () => window.removeEventListener('keydown', onKey);
  }, []);
}
