/** A real image of 8 x 8 pixels: contracts look at the headers of files. */
export const PNG =
  'iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAKUlEQVR42mM8cekZAzbAwsDA8CbLCc4XmbYPwmBiwAFIl2DEZTnpRgEAmrsIERe3+8IAAAAASUVORK5CYII=';

/** The same as bytes. */
export const png = () => new Uint8Array(Buffer.from(PNG, 'base64'));
