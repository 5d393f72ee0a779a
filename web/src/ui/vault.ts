/**
 * Where conversations are kept: IndexedDB, every record sealed with AES-256-GCM under a key that the page can use and not read.
 *
 * Without a passphrase the key lies beside the records, as a WebCrypto key that no script can export: that keeps copies of
 * single records unreadable, and protects from nobody who can use this browser profile. With one, the key is wrapped under
 * PBKDF2 of it and exists unwrapped only while the page is open. Kind and id of a record are bound to it as associated data.
 * What the disk shows in either case: how many records there are, and how long they are.
 */

const DATABASE = "strongroom";
const VERSION = 1;
const ITERATIONS = 600_000; // PBKDF2-HMAC-SHA-256, as OWASP asks for
const FORMAT = "strongroom.page.v1";

export type Kind = "conversation" | "evidence" | "settings";

interface Row {
  readonly id: string;
  readonly kind: Kind;
  readonly iv: Uint8Array<ArrayBuffer>;
  readonly sealed: ArrayBuffer;
}

type KeyRow =
  | { readonly id: "data"; readonly key: CryptoKey }
  | {
      readonly id: "data";
      readonly wrapped: ArrayBuffer;
      readonly iv: Uint8Array<ArrayBuffer>;
      readonly salt: Uint8Array<ArrayBuffer>;
      readonly iterations: number;
    };

export class WrongPassphrase extends Error {}

function done<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

function committed(transaction: IDBTransaction): Promise<void> {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error);
  });
}

function database(): Promise<IDBDatabase> {
  const request = indexedDB.open(DATABASE, VERSION);
  request.onupgradeneeded = () => {
    request.result.createObjectStore("keys", { keyPath: "id" });
    request.result.createObjectStore("records", { keyPath: "id" }).createIndex("kind", "kind");
  };
  return done(request);
}

function random(bytes: number): Uint8Array<ArrayBuffer> {
  return crypto.getRandomValues(new Uint8Array(bytes));
}

/** 128 random bits in hex. */
export function freshId(): string {
  return [...random(16)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function bound(kind: Kind, id: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(`${FORMAT}\0${kind}\0${id}`);
}

function dataKey(extractable: boolean): Promise<CryptoKey> {
  return crypto.subtle.generateKey({ name: "AES-GCM", length: 256 }, extractable, ["encrypt", "decrypt"]);
}

async function wrapping(passphrase: string, salt: Uint8Array<ArrayBuffer>, iterations: number): Promise<CryptoKey> {
  const typed = new TextEncoder().encode(passphrase.normalize("NFKC"));
  const base = await crypto.subtle.importKey("raw", typed, "PBKDF2", false, ["deriveKey"]);
  return crypto.subtle.deriveKey(
    { name: "PBKDF2", hash: "SHA-256", salt, iterations },
    base,
    { name: "AES-GCM", length: 256 },
    false,
    ["wrapKey", "unwrapKey"],
  );
}

export class Vault {
  readonly #database: IDBDatabase;
  #key: CryptoKey | null;
  #protected: boolean;

  private constructor(database: IDBDatabase, key: CryptoKey | null, isProtected: boolean) {
    this.#database = database;
    this.#key = key;
    this.#protected = isProtected;
  }

  /** Opens what is there, or begins anew. Throws where the browser keeps nothing (some private windows). */
  static async open(): Promise<Vault> {
    const opened = await database();
    const fresh = await dataKey(false);
    const transaction = opened.transaction("keys", "readwrite");
    const keys = transaction.objectStore("keys");
    const row = (await done(keys.get("data"))) as KeyRow | undefined;
    if (row === undefined) keys.put({ id: "data", key: fresh } satisfies KeyRow);
    await committed(transaction);
    if (row !== undefined && "wrapped" in row) return new Vault(opened, null, true);
    return new Vault(opened, row?.key ?? fresh, false);
  }

  /** Whether a passphrase has to be given first. */
  get locked(): boolean {
    return this.#key === null;
  }

  /** Whether a passphrase is set. */
  get protected(): boolean {
    return this.#protected;
  }

  /** Throws WrongPassphrase. */
  async unlock(passphrase: string): Promise<void> {
    const row = (await done(this.#database.transaction("keys").objectStore("keys").get("data"))) as KeyRow | undefined;
    if (row === undefined || !("wrapped" in row)) throw new WrongPassphrase("there is no passphrase");
    const outer = await wrapping(passphrase, row.salt, row.iterations);
    try {
      this.#key = await crypto.subtle.unwrapKey(
        "raw",
        row.wrapped,
        outer,
        { name: "AES-GCM", iv: row.iv },
        "AES-GCM",
        false,
        ["encrypt", "decrypt"],
      );
    } catch {
      throw new WrongPassphrase("that is not the passphrase");
    }
  }

  /** Seals every record anew under a fresh key, wrapped under the passphrase, or not wrapped where it is `null`. */
  async protect(passphrase: string | null): Promise<void> {
    const rows = (await done(this.#database.transaction("records").objectStore("records").getAll())) as Row[];
    const extractable = await dataKey(true);
    const raw = await crypto.subtle.exportKey("raw", extractable);
    const key = await crypto.subtle.importKey("raw", raw, "AES-GCM", false, ["encrypt", "decrypt"]);
    new Uint8Array(raw).fill(0);
    let keyRow: KeyRow = { id: "data", key };
    if (passphrase !== null) {
      const [iv, salt] = [random(12), random(16)];
      const outer = await wrapping(passphrase, salt, ITERATIONS);
      const wrapped = await crypto.subtle.wrapKey("raw", extractable, outer, { name: "AES-GCM", iv });
      keyRow = { id: "data", wrapped, iv, salt, iterations: ITERATIONS };
    }
    const again = await Promise.all(rows.map(async (row) => this.#sealed(key, row.kind, row.id, await this.#plain(row))));
    const transaction = this.#database.transaction(["keys", "records"], "readwrite");
    transaction.objectStore("keys").put(keyRow);
    for (const row of again) transaction.objectStore("records").put(row);
    await committed(transaction);
    this.#key = key;
    this.#protected = passphrase !== null;
  }

  async put(kind: Kind, id: string, value: unknown): Promise<void> {
    const row = await this.#sealed(this.#require(), kind, id, new TextEncoder().encode(JSON.stringify(value)));
    const transaction = this.#database.transaction("records", "readwrite");
    transaction.objectStore("records").put(row);
    await committed(transaction);
  }

  async get(kind: Kind, id: string): Promise<unknown> {
    const row = (await done(this.#database.transaction("records").objectStore("records").get(id))) as Row | undefined;
    return row === undefined || row.kind !== kind ? undefined : this.#value(row);
  }

  /** Every record of a kind that opens, and how many do not. */
  async all(kind: Kind): Promise<{ values: unknown[]; damaged: number }> {
    const index = this.#database.transaction("records").objectStore("records").index("kind");
    const rows = (await done(index.getAll(kind))) as Row[];
    const opened = await Promise.allSettled(rows.map((row) => this.#value(row)));
    const values = opened.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []));
    return { values, damaged: rows.length - values.length };
  }

  /** Of every record of a kind, whether it opens or not. */
  async ids(kind: Kind): Promise<string[]> {
    const index = this.#database.transaction("records").objectStore("records").index("kind");
    return (await done(index.getAllKeys(kind))) as string[];
  }

  async delete(ids: readonly string[]): Promise<void> {
    const transaction = this.#database.transaction("records", "readwrite");
    for (const id of ids) transaction.objectStore("records").delete(id);
    await committed(transaction);
  }

  /** Every record and the key, for good. */
  async erase(): Promise<void> {
    const transaction = this.#database.transaction(["keys", "records"], "readwrite");
    transaction.objectStore("keys").clear();
    transaction.objectStore("records").clear();
    await committed(transaction);
    this.#key = null;
  }

  #require(): CryptoKey {
    if (this.#key === null) throw new Error("the vault is locked");
    return this.#key;
  }

  async #sealed(key: CryptoKey, kind: Kind, id: string, plain: BufferSource): Promise<Row> {
    const iv = random(12);
    const sealed = await crypto.subtle.encrypt({ name: "AES-GCM", iv, additionalData: bound(kind, id) }, key, plain);
    return { id, kind, iv, sealed };
  }

  #plain(row: Row): Promise<ArrayBuffer> {
    const how = { name: "AES-GCM", iv: row.iv, additionalData: bound(row.kind, row.id) };
    return crypto.subtle.decrypt(how, this.#require(), row.sealed);
  }

  async #value(row: Row): Promise<unknown> {
    return JSON.parse(new TextDecoder().decode(await this.#plain(row)));
  }
}
