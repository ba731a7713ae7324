/** The small signs rows and panels share. */
import type {CSSProperties} from 'react';
import type {State, User} from './schema.ts';
import {initials, PRIORITIES} from './wording.ts';

const tint = (color: string) => ({'--tint': color}) as CSSProperties;

export function Dot({color}: {color: string}) {
  return <span className="dot" style={tint(color)} aria-hidden />;
}

export function Chip({name, color}: {name: string; color: string}) {
  return (
    <span className="chip" title={name}>
      <Dot color={color} />
      {name}
    </span>
  );
}

export function Avatar({user, large}: {user: User | undefined; large?: boolean}) {
  const size = large ? 'avatar avatar-large' : 'avatar';
  if (!user) return <span className={`${size} avatar-none`} title="Nobody" />;
  return (
    <span className={size} style={tint(user.color)} title={user.name}>
      {initials(user.name)}
    </span>
  );
}

export function StateIcon({state}: {state: State}) {
  const closed = state === 'closed';
  return (
    <svg className="state-icon" data-state={state} viewBox="0 0 16 16" role="img">
      <title>{closed ? 'Closed' : 'Open'}</title>
      <circle cx="8" cy="8" r="6" />
      {closed && <path d="M5.3 8.2l1.9 1.9 3.6-4" />}
    </svg>
  );
}

export function PriorityIcon({priority}: {priority: number}) {
  const name = PRIORITIES[priority] ?? PRIORITIES[0];
  if (priority >= 4) {
    return (
      <svg className="priority-icon urgent" viewBox="0 0 16 16" role="img">
        <title>{name}</title>
        <rect x="1.5" y="1.5" width="13" height="13" rx="3.5" />
        <path d="M8 4.6v4.1M8 11.1v.3" />
      </svg>
    );
  }
  return (
    <svg className="priority-icon" viewBox="0 0 16 16" role="img">
      <title>{name}</title>
      {[1, 2, 3].map(bar => (
        <rect
          key={bar}
          data-on={priority >= bar}
          x={bar * 4.5 - 3}
          y={13 - bar * 3.4}
          width="3"
          height={bar * 3.4}
          rx="1"
        />
      ))}
    </svg>
  );
}
