import {useEffect, useState} from 'react';

/** Renders again every so often, so that ages stay true; returns the number of the tick. */
export function useTick(everyMs: number): number {
  const [tick, setTick] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => setTick(t => t + 1), everyMs);
    return () => clearInterval(timer);
  }, [everyMs]);
  return tick;
}
