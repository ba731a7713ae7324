import type {Label, Project, User} from './schema.ts';

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

/** The same within a sentence: `just now`, `5m ago`. */
export function since(time: number): string {
  const age = ago(time);
  return age === 'now' ? 'just now' : `${age} ago`;
}

export function givenName(user: User | undefined): string {
  return user?.name.split(' ')[0] ?? 'Someone';
}

export function initials(name: string): string {
  const parts = name.split(' ');
  return ((parts[0]?.[0] ?? '') + (parts.at(-1)?.[0] ?? '')).toUpperCase();
}

/** Labels by name: a relation through a junction table comes in no order of its own. */
export function byName(labels: readonly Label[]): readonly Label[] {
  return labels.toSorted((a, b) => a.name.localeCompare(b.name));
}
