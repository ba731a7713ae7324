import type {Project} from './schema.ts';

export const PRIORITIES = ['No priority', 'Low', 'Medium', 'High', 'Urgent'] as const;

/** `KEL-123`; a new issue has no number until the database gave it one. */
export function issueKey(project: Project | undefined, number: number | null | undefined): string {
  return `${project?.key ?? '···'}-${number ?? 'new'}`;
}

const STEPS: readonly (readonly [number, string])[] = [
  [60, 's'],
  [60, 'm'],
  [24, 'h'],
  [30, 'd'],
  [12, 'mo'],
  [1_000, 'y'],
];

/** A short age such as `5m`; the page is live, so a few seconds are `now`. */
export function ago(time: number): string {
  let amount = (Date.now() - time) / 1000;
  if (amount < 10) return 'now';
  for (const [size, unit] of STEPS) {
    if (amount < size) return `${Math.floor(amount)}${unit}`;
    amount /= size;
  }
  return '';
}

export function initials(name: string): string {
  const parts = name.split(' ');
  return ((parts[0]?.[0] ?? '') + (parts.at(-1)?.[0] ?? '')).toUpperCase();
}
