// JSON Web Tokens for the tests.

import {SignJWT} from 'jose';

/** A token for a user, signed with HS256. `claims` may override any claim. */
export function token(sub, secret, {expires = '1h', ...claims} = {}) {
  return new SignJWT(claims)
    .setProtectedHeader({alg: 'HS256'})
    .setSubject(sub)
    .setIssuedAt()
    .setExpirationTime(expires)
    .sign(new TextEncoder().encode(secret));
}
