/**
 * A text that is edited in place. It follows the database while nobody is in the field, keeps the
 * user's draft while somebody is, and saves when the field is left (or Enter in a one-line field).
 * Escape gives the draft up.
 */
import {useEffect, useLayoutEffect, useRef, useState, type KeyboardEvent} from 'react';

type Props = {
  value: string;
  label: string;
  testid: string;
  className: string;
  placeholder?: string;
  multiline?: boolean;
  required?: boolean;
  onSave: (value: string) => void;
};

export function DraftField(props: Props) {
  const {value, label, testid, className, placeholder, multiline, required, onSave} = props;
  const [draft, setDraft] = useState<string>();
  const element = useRef<HTMLTextAreaElement>(null);
  const abandoned = useRef(false);
  const shown = draft ?? value;

  const fit = () => {
    const area = element.current;
    if (!area) return;
    area.style.height = 'auto';
    area.style.height = `${area.scrollHeight}px`;
  };
  useLayoutEffect(fit, [shown]);
  useEffect(() => {
    window.addEventListener('resize', fit);
    return () => window.removeEventListener('resize', fit);
  }, []);

  const leave = () => {
    const text = multiline ? (draft ?? '') : (draft ?? '').trim();
    const save = !abandoned.current && draft !== undefined && text !== value;
    abandoned.current = false;
    setDraft(undefined);
    if (save && (text !== '' || !required)) onSave(text);
  };
  const onKeyDown = (event: KeyboardEvent<HTMLTextAreaElement>) => {
    if (event.key === 'Escape') {
      abandoned.current = true;
      event.currentTarget.blur();
    } else if (event.key === 'Enter' && (!multiline || event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      event.currentTarget.blur();
    }
  };
  return (
    <textarea
      ref={element}
      rows={1}
      className={className}
      data-testid={testid}
      aria-label={label}
      placeholder={placeholder}
      value={shown}
      spellCheck={false}
      onFocus={() => setDraft(value)}
      onChange={event => {
        const text = event.target.value;
        setDraft(multiline ? text : text.replaceAll('\n', ' '));
      }}
      onBlur={leave}
      onKeyDown={onKeyDown}
    />
  );
}
