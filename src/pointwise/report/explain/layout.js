// How large the grids are drawn: the largest cells with which everything fits into the window.

const CARD_GAP = 14, BAND_GAP = 26, TITLE = 30, CAPTION = 22, MIN_CARD = 84, PARTIAL = 58, SMALL_KERNEL = 84, ONE_WEIGHT = 24;
const TITLE_WIDTH = {reading: 268, output: 184};

/** Rows and columns of a band's planes, with the padding that its layer puts around them. */
function bandSize({layer, source, planes}) {
  const size = {rows: planes[0].length, columns: planes[0][0].length, top: 0, left: 0};
  if (source && source.kind === "imageWeight") size.block = source.layer.kernel;
  const padded = layer && (layer.kind === "image" ? layer : layer.kind === "imageWeight" ? layer.layer : null);
  if (!padded) return size;
  const [top, bottom] = padded.vertical, [left, right] = padded.horizontal;
  return {rows: size.rows + top + bottom, columns: size.columns + left + right, top, left};
}

/**
 * The size of a band's cards (a channel and what it is multiplied by, beside or below it), in pixels. What a band has
 * been computed to may be drawn larger than what is read.
 */
function cardSize(band, {cell: small, larger, largestTap, beside}) {
  const size = bandSize(band), cell = band.source ? small + larger : small;
  const plane = {width: gridWidth({...size, cell}) + 4, height: size.rows * cell + 4};
  const captioned = (arrangement, tap, width, height) =>
    ({arrangement, cell, tap, width: Math.max(MIN_CARD, width), height: CAPTION + height + CARD_GAP});
  if (!band.layer) return captioned("alone", 0, plane.width, plane.height);
  const {values} = besideOf(band.layer, 0, {channel: 0, position: 0});
  const [rows, columns] = [values.length, values[0].length];
  if (rows === 1 && columns === 1) return captioned("single", ONE_WEIGHT, plane.width, plane.height + ONE_WEIGHT + 8);
  const room = beside ? Math.max(plane.height - 26, SMALL_KERNEL) : plane.width - 4;
  const tap = Math.max(4, Math.min(largestTap, Math.floor(room / Math.max(rows, columns))));
  const [width, height] = [columns * tap + 4, rows * tap + 4];
  return beside
    ? captioned("beside", tap, plane.width + 8 + Math.max(width, PARTIAL), Math.max(plane.height, height + 24))
    : captioned("below", tap, Math.max(plane.width, width), plane.height + 6 + height + 22);
}

/** A band with so many cards in a row. */
function bandWith(band, card, across) {
  const width = across * (card.width + CARD_GAP) - CARD_GAP;
  return {
    width: Math.max(width, band.layer ? TITLE_WIDTH.reading : TITLE_WIDTH.output),
    height: TITLE + Math.ceil(band.cards.length / across) * card.height,
  };
}

/** Bands beside each other, as low as the width allows; null where they do not fit. */
function lineOf(bands, cards, width) {
  const options = bands.map((band, n) =>
    band.cards.map((_, i) => bandWith(band, cards[n], i + 1)));
  const heights = [...new Set(options.flat().map(({height}) => height))].sort((a, b) => a - b);
  for (const height of heights) {
    const chosen = options.map(option => option.find(one => one.height <= height));
    if (chosen.includes(undefined)) continue;
    const used = chosen.reduce((sum, one) => sum + one.width, (bands.length - 1) * BAND_GAP);
    if (used <= width) return {height, widths: chosen.map(one => one.width)};
  }
  return null;
}

/** All ways to break a list into lines. */
function linesOf(list) {
  if (list.length <= 1) return [[list]];
  return linesOf(list.slice(1)).flatMap(([first, ...rest]) =>
    [[[list[0], ...first], ...rest], [[list[0]], first, ...rest]]);
}

/** The lowest arrangement of bands with cells of one size; null where the width is too small. */
function arrange(bands, how, width) {
  const cards = new Map(bands.map(band => [band, cardSize(band, how)]));
  let best = null;
  for (const lines of linesOf(bands)) {
    const found = lines.map(line => lineOf(line, line.map(band => cards.get(band)), width));
    if (found.includes(null)) continue;
    const height = found.reduce((sum, line) => sum + line.height, 0);
    if (!best || height < best.height)
      best = {height, widths: found.flatMap(line => line.widths), cards: [...cards.values()], ...how};
  }
  return best;
}

/** The arrangement with the largest cells that fits; with the smallest, as high as it comes. */
function fitBands(bands, width, height) {
  const ways = [[34, true], [34, false], [28, true], [28, false]].map(([largestTap, beside]) => ({largestTap, beside}));
  for (let cell = 34; cell > 4; cell--)
    for (const way of ways) {
      const found = arrange(bands, {cell, larger: 0, ...way}, width);
      if (!found || (found.height > height && cell > 5)) continue;
      // What is left over goes to the outputs, whose numbers are longer.
      for (let larger = Math.min(12, 34 - cell); larger > 0; larger--) {
        const roomier = arrange(bands, {cell, larger, ...way}, width);
        if (roomier && roomier.height <= Math.max(height, found.height)) return roomier;
      }
      return found;
    }
  return {...arrange(bands, {cell: 5, larger: 0, largestTap: 28, beside: false}, Infinity)};
}
