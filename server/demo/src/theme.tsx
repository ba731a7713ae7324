import {useEffect, useState} from 'react';

const KEY = 'kelvin-demo-theme';
type Theme = 'light' | 'dark' | '';

/** Follows the system until the user chooses. */
export function ThemeButton() {
  const [theme, setTheme] = useState<Theme>(() => (localStorage.getItem(KEY) ?? '') as Theme);
  useEffect(() => {
    if (theme) document.documentElement.dataset['theme'] = theme;
    else delete document.documentElement.dataset['theme'];
    localStorage.setItem(KEY, theme);
  }, [theme]);
  const toggle = () => {
    const system = matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light';
    setTheme((theme || system) === 'dark' ? 'light' : 'dark');
  };
  return (
    <button className="icon-button theme" aria-label="Switch colours" title="Dark or light" onClick={toggle}>
      <svg viewBox="0 0 16 16" aria-hidden>
        <circle cx="8" cy="8" r="5.5" />
        <path d="M8 2.5a5.5 5.5 0 0 1 0 11z" />
      </svg>
    </button>
  );
}
