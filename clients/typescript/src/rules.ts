/**
 * Executes the cross-field rules of the schema (`x-sheaf-rules`) from the generated table, with the same
 * codes and paths as the server; the cases in schema/cases hold both to it.
 */
import { readTimestamp } from './checks.js';
import { pointer } from './faults.js';
import { NESTED, RULES, type Rule } from './generated/rules.gen.js';
import type { Fault } from './generated/types.gen.js';

type Members = Record<string, unknown>;
type Path = readonly (string | number)[];
type Finding = [path: Path, message: string];
type Check = (model: Members, rule: Rule) => Iterable<Finding>;

/** The rules of each schema, and where requests hold values of other schemas that have rules. */
export interface Tables {
  rules: Record<string, Rule[]>;
  nested: Record<string, [path: string, schema: string][]>;
}

const TABLES: Tables = { rules: RULES, nested: NESTED };

/** The faults that the rules of a schema, and of the schemas inside it, find in a body whose fields are valid. */
export function breaches(schema: string, body: Members, tables = TABLES): Fault[] {
  const inner = (tables.nested[schema] ?? []).flatMap(([place, name]) =>
    [...within(body, place)].flatMap(([path, value]) => run(tables.rules[name], value as Members, path)),
  );
  return inner.length > 0 ? inner : run(tables.rules[schema], body, []);
}

function run(rules: Rule[] = [], model: Members, root: Path): Fault[] {
  return rules.flatMap((rule) => {
    const check = CHECKS[rule.rule];
    if (!check) throw new TypeError(`unknown rule ${rule.rule}`);
    return [...check(model, rule)].map(([path, message]) => ({
      code: rule.rule,
      path: pointer([...root, ...path]),
      message,
    }));
  });
}

/** The value at `field`, or each member at `field.*`; nothing where it is not given. */
function* within(value: unknown, place: string): Generator<[Path, unknown]> {
  const [part, ...rest] = place.split('.') as [string, ...string[]];
  if (!isContainer(value)) return;
  const keys = part !== '*' ? [part] : Array.isArray(value) ? value.keys() : Object.keys(value);
  for (const key of keys) {
    const member = (value as Record<string | number, unknown>)[key];
    if (member === undefined || member === null) continue;
    if (rest.length === 0) yield [[key], member];
    else for (const [path, found] of within(member, rest.join('.'))) yield [[key, ...path], found];
  }
}

function isContainer(value: unknown): value is object {
  return typeof value === 'object' && value !== null;
}

const text = (rule: Rule, member: string) => rule[member] as string;
const list = (rule: Rule, member: string) => rule[member] as string[];
const given = (model: Members, fields: string[]) => fields.filter((name) => (model[name] ?? null) !== null);
const same = (model: Members, name: string, value: unknown) => (model[name] ?? null) === value;
/** Columns of a table; 1 for a list of plain values. */
const widthOf = (rows: unknown[]) => (Array.isArray(rows[0]) ? rows[0].length : 1);
const lists = (model: Members, place: string) => within(model, place) as Generator<[Path, unknown[]]>;

function comesAfter(after: unknown, before: unknown): boolean {
  if (typeof after !== 'string' || typeof before !== 'string') return Number(after) > Number(before);
  const [a, b] = [readTimestamp(after), readTimestamp(before)];
  if (!a || !b) return after > before;
  // One time with an offset, one without: they have no order.
  return a.offset === b.offset && (a.seconds > b.seconds || (a.seconds === b.seconds && a.micros > b.micros));
}

const CHECKS: Record<string, Check> = {
  *exactly_one_of(model, rule) {
    if (rule.unless !== undefined && model[text(rule, 'unless')] === true) return;
    const found = given(model, list(rule, 'fields'));
    const all = list(rule, 'fields').join(', ');
    if (found.length !== 1) yield [[], `Give exactly one of ${all}; ${found.join(', ') || 'none'} given.`];
  },

  *at_most_one_of(model, rule) {
    const second = given(model, list(rule, 'fields'))[1];
    if (second) yield [[second], `Give at most one of ${list(rule, 'fields').join(', ')}.`];
  },

  *requires(model, rule) {
    if (given(model, [text(rule, 'field')]).length === 0) return;
    const present = given(model, list(rule, 'needs'));
    for (const need of list(rule, 'needs')) {
      if (!present.includes(need)) yield [[need], `Needed with ${text(rule, 'field')}.`];
    }
  },

  *rectangular(model, rule) {
    for (const [path, rows] of lists(model, text(rule, 'field'))) {
      if (!Array.isArray(rows[0])) continue;
      const width = rows[0].length;
      const odd = rows.findIndex((row) => (row as unknown[]).length !== width);
      const found = (rows[odd] as unknown[] | undefined)?.length;
      if (odd >= 0) yield [[...path, odd], `Row ${odd} has ${found} values, row 0 has ${width}.`];
    }
  },

  *some_present(model, rule) {
    for (const [path, rows] of lists(model, text(rule, 'field'))) {
      const absent = (row: unknown) =>
        Array.isArray(row) ? row.every((item) => item === null) : row === null;
      if (rows.every(absent)) yield [path, 'At least one value must not be null.'];
    }
  },

  *index_within(model, rule) {
    for (const [, rows] of lists(model, text(rule, 'of'))) {
      const width = widthOf(rows);
      for (const [path, index] of within(model, text(rule, 'field'))) {
        if ((index as number) >= width)
          yield [path, `Must be below ${width}, the number of columns of ${text(rule, 'of')}.`];
      }
    }
  },

  *unique(model, rule) {
    for (const [path, items] of lists(model, text(rule, 'field'))) {
      const seen = new Set();
      const repeat = items.findIndex((item) => seen.has(item) || !seen.add(item));
      if (repeat >= 0) yield [[...path, repeat], 'Repeats an earlier item.'];
    }
  },

  *unique_by(model, rule) {
    const member = text(rule, 'member');
    for (const [path, items] of lists(model, text(rule, 'field'))) {
      const seen = new Set();
      const values = (items as Members[]).map((item) => item[member]);
      const repeat = values.findIndex((value) => seen.has(value) || !seen.add(value));
      if (repeat >= 0) yield [[...path, repeat, member], 'Repeats that of an earlier item.'];
    }
  },

  *increasing(model, rule) {
    for (const [path, items] of lists(model, text(rule, 'field'))) {
      const early = items.findIndex((item, i) => i > 0 && !comesAfter(item, items[i - 1]));
      if (early >= 0) yield [[...path, early], 'Must come after the item before it.'];
    }
  },

  *same_length(model, rule) {
    for (const [, reference] of lists(model, text(rule, 'as'))) {
      for (const [path, items] of lists(model, text(rule, 'field'))) {
        if (items.length !== reference.length) {
          yield [path, `Has ${items.length} items; ${text(rule, 'as')} has ${reference.length}.`];
        }
      }
    }
  },

  *length_equals(model, rule) {
    const expected = model[text(rule, 'value')];
    for (const [path, items] of lists(model, text(rule, 'field'))) {
      if (items.length !== expected)
        yield [path, `Has ${items.length} items; ${text(rule, 'value')} is ${expected}.`];
    }
  },

  *keys_within(model, rule) {
    const allowed = model[text(rule, 'of')] ?? {};
    for (const [path, mapping] of within(model, text(rule, 'field'))) {
      for (const key of Object.keys(mapping as object)) {
        if (!Object.hasOwn(allowed, key))
          yield [[...path, key], `Not among the names in ${text(rule, 'of')}.`];
      }
    }
  },

  *at_least_one_of(model, rule) {
    const all = list(rule, 'fields');
    if (given(model, all).length === 0) yield [[], `Give at least one of ${all.join(', ')}.`];
  },

  *some_true(model, rule) {
    const all = list(rule, 'fields');
    if (all.every((name) => model[name] !== true))
      yield [[], `At least one of ${all.join(', ')} must be true.`];
  },

  *items_within(model, rule) {
    for (const [, rows] of lists(model, text(rule, 'of'))) {
      const width = widthOf(rows);
      for (const [path, items] of lists(model, text(rule, 'field'))) {
        const outside = (items as number[]).findIndex((item) => item < 0 || item >= width);
        if (outside >= 0)
          yield [[...path, outside], `Must be below ${width}, the number of columns of ${text(rule, 'of')}.`];
      }
    }
  },

  *same_width(model, rule) {
    for (const [, reference] of lists(model, text(rule, 'as'))) {
      for (const [path, rows] of lists(model, text(rule, 'field'))) {
        const [width, expected] = [widthOf(rows), widthOf(reference)];
        if (width !== expected) yield [path, `Has ${width} columns; ${text(rule, 'as')} has ${expected}.`];
      }
    }
  },

  *length_is_width(model, rule) {
    for (const [, rows] of lists(model, text(rule, 'of'))) {
      for (const [path, items] of lists(model, text(rule, 'field'))) {
        const width = widthOf(rows);
        if (items.length !== width)
          yield [path, `Has ${items.length} items; ${text(rule, 'of')} has ${width} columns.`];
      }
    }
  },

  *same_keys(model, rule) {
    const reference = Object.keys(model[text(rule, 'as')] ?? {});
    for (const [path, mapping] of within(model, text(rule, 'field'))) {
      const keys = Object.keys(mapping as object);
      const foreign = keys.find((key) => !reference.includes(key));
      const missing = reference.find((key) => !keys.includes(key));
      if (foreign !== undefined) yield [[...path, foreign], `Not among the names in ${text(rule, 'as')}.`];
      else if (missing !== undefined) yield [path, `${missing} is missing; ${text(rule, 'as')} has it.`];
    }
  },

  *value_requires(model, rule) {
    const [field, needs] = [text(rule, 'field'), text(rule, 'needs')];
    if (same(model, field, rule.value) && !same(model, needs, rule.equals))
      yield [[field], `${rule.value} is for ${needs} ${rule.equals} alone.`];
  },

  *numbers_when(model, rule) {
    const [when, equals] = [text(rule, 'when'), rule.equals];
    if (!same(model, when, equals)) return;
    for (const [path, items] of lists(model, text(rule, 'field'))) {
      const odd = items.findIndex((item) => typeof item !== 'number');
      if (odd >= 0) yield [[...path, odd], `Must be a number where ${when} is ${equals}.`];
    }
  },

  *some_filled(model, rule) {
    const all = list(rule, 'fields');
    if (all.every((name) => isEmpty(model[name])))
      yield [[], `At least one of ${all.join(', ')} must not be empty.`];
  },

  *filled_with(model, rule) {
    const [field, other] = [text(rule, 'field'), text(rule, 'of')];
    if (!isEmpty(model[other]) && isEmpty(model[field]))
      yield [[field], `Must not be empty where ${other} is not.`];
  },

  *needed_when_true(model, rule) {
    const [field, flag] = [text(rule, 'field'), text(rule, 'flag')];
    if (rule.unless !== undefined && !same(model, text(rule, 'unless'), null)) return;
    if (isTrue(model[flag]) && same(model, field, null)) yield [[field], `Needed when ${flag} is true.`];
  },

  *not_true_beside(model, rule) {
    const [field, other] = [text(rule, 'field'), text(rule, 'other')];
    if (isTrue(model[field]) && !same(model, other, null))
      yield [[field], `Must not be true beside ${other}.`];
  },

  *boxes(model, rule) {
    for (const [path, boxes] of lists(model, text(rule, 'field'))) {
      const many = Array.isArray(boxes[0]);
      const turned = ((many ? boxes : [boxes]) as number[][]).findIndex(isTurned);
      const message = 'Must be x_min, y_min, x_max, y_max with x_min < x_max and y_min < y_max.';
      if (turned >= 0) yield [many ? [...path, turned] : path, message];
    }
  },
};

function isEmpty(value: unknown): boolean {
  return !isContainer(value) || Object.keys(value).length === 0;
}

/** Whether a flag is true, or one of several. */
function isTrue(flag: unknown): boolean {
  return Array.isArray(flag) ? flag.includes(true) : flag === true;
}

function isTurned(box: number[]): boolean {
  const [left, top, right, bottom] = box as [number, number, number, number];
  return box.length === 4 && !(left < right && top < bottom);
}
