import react from '@vitejs/plugin-react';
import {defineConfig} from 'vite';

export default defineConfig({
  plugins: [react()],
  build: {target: 'es2022', chunkSizeWarningLimit: 2000},
  server: {
    // `npm run dev` beside a running `kelvin demo`: the page asks the demo where kelvin is.
    proxy: {'/config.json': 'http://localhost:8080'},
  },
});
