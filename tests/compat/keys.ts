/** Opens `v1/store`. Everybody knows it: it protects nothing. */
export const compatKeys = "compat-v1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
