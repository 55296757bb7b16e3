/** The texts of `texts.ts` in German. */

import type { Rate } from "./network/card";
import type { Kind } from "./network/decision";
import { count, counted, decimals, isClose, milliseconds, percentExact } from "./numbers";
import type { Errors, Texts } from "./texts";

export const german: Texts = {
  name: "telltale",
  tabs: { detect: "Prüfen", evaluate: "Auswerten", history: "Verlauf", about: "Über" },
  mainNavigation: "Ansichten",
  skip: "Zum Inhalt springen",

  insecure: "Diese App braucht eine sichere Adresse (https oder localhost): Anderswo erlauben Browser keinen Offline-Speicher.",
  start: "Gleich bereit …",
  startFailed: (detail) => `Die App konnte nicht starten: ${detail}.`,
  fault: (detail) => `Etwas ist schiefgegangen: ${detail}`,

  update: {
    app: "Eine neue Version der App ist da.",
    reload: "Jetzt verwenden",
    models: (names) => `${names.length === 1 ? "Neues Modell" : "Neue Modelle"}: ${names.join(", ")}.`,
    dismiss: "Schließen",
  },

  detect: {
    title: "Foto oder generiert?",
    lead: "Bilder prüfen. Sie bleiben auf diesem Gerät: Nichts wird gesendet.",
    camera: "Foto aufnehmen",
    choose: "Bilder auswählen",
    hint: "Eines oder viele. Sie können Bilder auch einfügen, Bilder oder einen Ordner hier ablegen oder mit dieser App teilen.",
    drop: "Bilder zum Prüfen ablegen",
    notAPicture: "Im Eingefügten oder Abgelegten ist kein Bild.",
    nothingShared: "Mit dem Geteilten kam kein Bild an. Wählen Sie es hier aus, oder speichern Sie es und teilen Sie es noch einmal.",
    working: "Das Bild wird geprüft …",
    loadingModel: (name) => `Das Modell ${name} wird geladen …`,
    verdictTitle: "Urteil",
    picture: (kind) => `Das Bild, ${kind.format}, kürzere Seite ${count(kind.shorterSide)} Pixel`,
    model: "Modell",
    modelOption: (name, size, isKept) => `${name} (${size})${isKept ? "" : ", noch nicht auf diesem Gerät"}`,
    scores: "Werte",
    scoreOf: (name, probability) => `${name} ${decimals(3).format(probability)}`,
    line: "Die Grenze",
    lineIs: ({ pFake, threshold, photographThreshold }) =>
      photographThreshold === null
        ? `${decimals(3).format(pFake)} für alle Generatoren zusammen; ab ${decimals(3).format(threshold)} gilt ein Bild dieser Größe als generiert`
        : `${decimals(3).format(pFake)} für generiert; ab ${decimals(3).format(threshold)} heißt ein Bild dieser Größe wahrscheinlich generiert, ` +
          `unter ${decimals(3).format(photographThreshold)} wahrscheinlich ein Foto`,
    sources: "Wenn es generiert ist, womit",
    zoom: "Bild: Die Tasten Plus, Minus und 0 vergrößern und verkleinern es",
    share: "Ergebnis speichern oder teilen",
    cardLimits: "Eine automatische Schätzung, kein Beweis: Bei diesem Bild kann sie falsch sein.",
    evidence: "Wo die Hinweise liegen",
    showEvidence: "Auf dem Bild zeigen",
    evidenceFor: "Hinweise auf",
    evidenceLegend: (name, ofWindows) =>
      `Orange Stellen sprechen für ${name}, blaue dagegen, verglichen mit den anderen Quellen und im Verhältnis zur stärksten ` +
      `Stelle dieses Bildes. Nur ${ofWindows ? "die umrahmten Ausschnitte werden" : "das mittlere Quadrat wird"} betrachtet. Zu sehen ist, was das Modell bewegt hat, nicht, was unecht ist.`,
    errorsTitle: "Wie weit man ihm trauen kann",
    details: "Einzelheiten",
    time: "Zeit",
    times: (graph, decode, reduce) =>
      `${milliseconds(graph)} für das Modell, ${milliseconds(decode)} zum Dekodieren, ${milliseconds(reduce)} zum Lesen und Verkleinern`,
    computedBy: "Berechnet mit",
    digest: "Modelldatei",
    digestIs: (digest) => `sha256 ${digest.slice(0, 12)}…`,
    familiarity: "Vertrautheit",
    familiarityIs: (name, value, threshold) =>
      `${name} ${decimals(3).format(value)}; unbekannt unter ${decimals(3).format(threshold)}`,
    reduced: (width, height) => `für das Modell auf ${count(width)} × ${count(height)} Pixel verkleinert`,
    windows: (number, side) =>
      `das Modell betrachtet ${counted(number, "Ausschnitt", "Ausschnitte")} von ${count(side)} × ${count(side)} Originalpixeln`,
    file: "Bild",
  },

  many: {
    order: "Reihenfolge",
    orders: { given: "Wie ausgewählt", probability: "Am ehesten generiert zuerst", name: "Nach Namen" },
    unnamed: (place) => `Bild ${count(place)}`,
    back: "Zurück zur Liste",
    summary: (all, generated, photographs, unanswered, unread) =>
      `${counted(all, "Bild", "Bilder")}: ${count(generated)} generiert, ${counted(photographs, "Foto", "Fotos")}, ` +
      `${count(unanswered)} ohne Antwort${unread === 0 ? "" : `, ${count(unread)} nicht lesbar`}.`,
  },

  verdict: (verdict, source, isProbable) => {
    if (verdict === "cannot-tell" || verdict === "unknown-source") return "Nicht zu entscheiden";
    if (verdict === "photograph") return isProbable ? "Wahrscheinlich ein Foto" : "Foto";
    return `${isProbable ? "Wahrscheinlich generiert" : "Generiert"}${source === null ? "" : `: ${source}`}`;
  },
  unknownMeans:
    "Das Bild gleicht nicht denen, mit denen dieses Modell trainiert wurde; deshalb gibt es keine Antwort. Das heißt nicht, dass ein unbekannter " +
    "Generator es gemacht hat: Die meisten Bilder solcher Generatoren bekommen eine Antwort.",
  formatMeans: "Dieses Modell wurde mit Dateien dieses Formats nicht geprüft; deshalb gibt es keine Antwort.",
  betweenMeans: "Das Bild liegt zwischen den beiden Grenzen, wo sich dieses Modell zu oft irren würde; deshalb gibt es keine Antwort.",
  modelName: (name, isDemonstration) => (isDemonstration ? `${name} (Demonstration)` : name),
  demonstration: "Demonstration",
  demonstrationMeans:
    "Dieses Modell begann mit zufälligen Gewichten. Es zeigt, wie die App arbeitet; was es über ein Bild sagt, ist nichts wert.",
  scale: {
    photograph: "Foto",
    between: "Nicht zu entscheiden",
    generated: "Generiert",
    line: "Der Strich ist die Grenze: Ab dort gilt ein Bild dieser Größe als generiert.",
    lines:
      "Die Striche sind die beiden Grenzen: Ab der rechten heißt ein Bild dieser Größe wahrscheinlich generiert, links der linken " +
      "wahrscheinlich ein Foto. Dazwischen gibt es keine Antwort.",
    where: ({ verdict, reason, pFake, threshold, photographThreshold }) => {
      if (verdict === "unknown-source" || reason === "unfamiliar" || reason === "format") return "Wo es liegt, besagt wenig: Die Skala gilt für Quellen, die das Modell kennt.";
      if (verdict === "cannot-tell") return "Zwischen den beiden Grenzen.";
      const isGenerated = verdict === "generated";
      const close = isClose(pFake, isGenerated ? threshold : (photographThreshold ?? threshold));
      const line = photographThreshold === null ? "der Grenze" : isGenerated ? "der rechten Grenze" : "der linken Grenze";
      const side = isGenerated ? "über" : "unter";
      return close ? `Knapp ${side} ${line}.` : `${isGenerated ? "Über" : "Unter"} ${line}.`;
    },
  },
  errors: (errors) => {
    const { falseAlarms, missed, missedUnknown } = errors;
    if (falseAlarms.value === null && missed.value === null) return "Wie oft es sich bei Bildern dieser Art irrt, wurde nicht getestet.";
    const called = falseAlarms.value === null ? null : `${shareOf(falseAlarms)} Fotos generiert genannt`;
    const overlooked = missed.value === null ? null : `${shareOf(missed)} generierten Bildern übersehen`;
    const neverSeen =
      overlooked && missedUnknown?.value != null ? `; von Generatoren, die es nie gesehen hatte, ${shareOf(missedUnknown).replace(/ von 100$/, "")}` : "";
    return `In unseren Tests hat es bei dieser Art ${[called, overlooked].filter((each) => each !== null).join(" und ")}${neverSeen}.${unanswered(errors)}`;
  },
  errorsDetail: ({ falseAlarms, missed, missedUnknown, kind }) => {
    const others = missedUnknown?.value != null ? `, dazu ${sample(missedUnknown, "Bilder von Generatoren, die es nie gesehen hatte")}` : "";
    return (
      `Von dieser Art (${tested(kind)}) waren ${sample(falseAlarms, "Fotos")} und ${sample(missed, "generierte Bilder")}${others}. ` +
      "Andere Kameras, Generatoren und Bearbeitungen wurden nicht getestet."
    );
  },
  kind: (kind) =>
    `${kind.format}${kind.jpegQuality === null ? "" : ` der Qualität ${kind.jpegQuality}`}, kürzere Seite ${count(kind.shorterSide)} Pixel`,

  providers: { wasm: "WebAssembly, ein CPU-Thread", webgpu: "WebGPU, Verkleinern auf der CPU" },

  file: {
    title: "Was die Datei selbst sagt",
    apart: "Neben dem Urteil, das allein auf den Pixeln beruht.",
    says: ({ c2pa, digitalSourceType, generatorTexts, camera }) => {
      const said = [
        c2pa && "Content Credentials (ein C2PA-Manifest) sind dabei. Sie sind signiert; die Signatur wurde hier nicht geprüft, ein Prüfdienst kann das.",
        digitalSourceType !== null &&
          `Die IPTC-Angabe „digital source type“ lautet ${digitalSourceType}. Wer die Datei gespeichert hat, hat sie geschrieben; jeder kann sie ändern oder entfernen.`,
        generatorTexts.length > 0 &&
          `Einstellungen eines Generators stehen darin (${generatorTexts.join(", ")}). Programme, die Bilder erzeugen, schreiben sie; sie sind ebenso leicht entfernt oder in ein Foto geschrieben.`,
        camera !== null && `Eine Kamera wird genannt: ${camera}. Das kann jedes Programm schreiben.`,
      ].filter((each) => each !== false);
      return said.length > 0 ? said : ["Nichts über ihre Herkunft. Das ist üblich: Die meisten Apps und Websites entfernen es."];
    },
  },

  badPicture: {
    empty: "Die Datei ist leer.",
    truncated: "Das Bild ist unvollständig: Seine Datei bricht ab.",
    unreadable:
      "Das ist kein Bild, das dieser Browser lesen kann, wie immer es heißt. Wenn ein anderes Programm es zeigt, speichern Sie es dort als JPEG und wählen Sie das aus.",
    "too-large": "Das Bild hat mehr als 100 Megapixel oder seine Datei mehr als 1 GB.",
    "too-small": "Das Bild ist zu klein: Seine kürzere Seite muss mindestens 16 Pixel haben.",
    "too-narrow":
      "Das Bild ist zu klein oder zu schmal: Seine kürzere Seite muss mindestens 16 Pixel haben, auch wenn die längere auf 1.024 verkleinert ist.",
    unsupported:
      "Dieser Browser zeigt Bilder dieser Art nicht (etwa HEIC, TIFF, JPEG XL, JPEG 2000 oder Kamera-Rohdaten). Speichern Sie es als JPEG, ohne es zu verkleinern, und wählen Sie das aus.",
    "out-of-memory": "Der Speicher dieses Geräts reicht für ein Bild dieser Größe nicht.",
  },
  tooSmallForWindows: (side, [height, width]) =>
    "Nicht zu entscheiden: In einem so kleinen Bild sind die Spuren verloren. Dieses Modell betrachtet Originalpixel und erwartet mindestens " +
    `${count(side)} je Seite; dieses Bild hat ${count(width)} × ${count(height)}.`,
  badModel: (detail) => `Das Modell ist nicht verwendbar: ${detail}.`,
  badModels: (details) => `${details.length === 1 ? "Ein Modell ist" : "Einige Modelle sind"} nicht verwendbar. ${details.join(" ")}`,
  modelFault: {
    newer: "Es wurde für eine neuere Version dieser App gemacht: Laden Sie die Seite neu, mit Netz",
    card: (card, file) => `Die Karte ${card} und das Netz ${file} gehören nicht zusammen; wer die App veröffentlicht, muss das Paar einsetzen`,
    other: (file, other) =>
      `Das Netz ${file} und seine Karte gehören nicht zusammen: Es ist die Datei von ${other}; wer die App veröffentlicht, muss das Paar einsetzen`,
    notItsCards: (file, expected, got) =>
      `Das Netz ${file} und seine Karte gehören nicht zusammen: Die Karte ist von sha256 ${expected}, die Datei hat ${got}; wer die App veröffentlicht, muss das Paar einsetzen`,
    damaged: (file, expected, got) => `${file} ist beschädigt: erwartet sha256 ${expected}, gefunden ${got}`,
  },
  storageFull: "Das Modell antwortet jetzt, konnte aber nicht für die Nutzung ohne Netz behalten werden: Auf diesem Gerät ist kein Platz dafür.",

  evaluate: {
    title: "Auswerten",
    lead: "Modelle auf diesem Gerät über viele Bilder laufen lassen: wie schnell sie sind und, wo die Wahrheit bekannt ist, wie oft sie recht haben.",
    models: "Modelle",
    pictures: "Bilder",
    bundled: (n) => (n === 0 ? "Vergleichsbilder (keine dabei)" : `${counted(n, "Vergleichsbild", "Vergleichsbilder")} der App`),
    own: "Meine eigenen",
    folder: "Ordner auswählen",
    files: "Bilder auswählen",
    ownHint:
      "Ordner mit dem Namen „real“, dem einer Quelle des Modells oder „fake“ sagen, was die Bilder darin sind; von anderen gilt es als unbekannt.",
    chosen: (n, labelled) => `${counted(n, "Bild", "Bilder")} ausgewählt, von ${count(labelled)} ist die Wahrheit bekannt`,
    start: "Start",
    stop: "Stopp",
    progress: (done, of) => `${count(done)} von ${count(of)} Bildern`,
    stopped: "Vorzeitig beendet.",
    results: "Ergebnisse",
    perPicture: "Zeiten pro Bild, nur für das Modell. Dekodieren und Lesen stehen getrennt darunter.",
    columns: {
      measure: "Maß",
      pictures: "Bilder",
      right: "Richtig, von allen bekannten",
      answered: "Beantwortet, von allen",
      median: "Median der Zeit",
      mean: "Mittlere Zeit",
      p95: "95. Perzentil",
      total: "Gesamtzeit",
    },
    share: (part, all) => (all === 0 ? "–" : `${percentExact(part / all)} (${part}\u00a0von\u00a0${all})`),
    failsSelfTest: "besteht hier den Selbsttest nicht: nicht gezählt",
    cannotBeUsed: "hier nicht verwendbar: nicht gezählt",
    notHere: "noch nicht auf diesem Gerät",
    unlabelled: "Was über Bilder gesagt wurde, deren Wahrheit nicht bekannt ist",
    picture: "Bild",
    decoding: (mean, median, p95, total) =>
      `Dekodieren und Lesen: Mittel ${milliseconds(mean)}, Median ${milliseconds(median)}, p95 ${milliseconds(p95)}, gesamt ${milliseconds(total)}.`,
    confusion: (model) => `${model}: was die Bilder sind (Zeilen) und was es sagte (Spalten)`,
    truth: "Wahrheit",
    photograph: "Foto",
    someGenerator: "Irgendein Generator",
    unknown: "Keine Antwort",
    failures: (n) => `${counted(n, "Datei", "Dateien")} ohne Antwort: nicht lesbar oder zu klein für das Modell`,
    csv: "Als CSV speichern",
    nothing: "Wählen Sie mindestens ein Modell und ein Bild.",
  },

  history: {
    title: "Verlauf",
    lead: "Nur auf diesem Gerät behalten.",
    empty: "Noch nichts. Geprüfte Bilder erscheinen hier.",
    keep: "Verlauf behalten",
    full: "Die Antwort gilt, konnte aber nicht in den Verlauf: Auf diesem Gerät ist kein Platz dafür. Löschen Sie alte Einträge, oder schalten Sie den Verlauf aus.",
    open: "Öffnen",
    close: "Schließen",
    ofBefore: "Eine ältere Version der App hat von dieser Antwort nicht mehr behalten.",
    remove: (what) => `${what} löschen`,
    removeShort: "Löschen",
    removeAll: "Alles löschen",
    removeAllSure: "Den ganzen Verlauf löschen? Das lässt sich nicht rückgängig machen.",
    cancel: "Abbrechen",
    entry: (model, when) => `${when} · ${model}`,
    thumbnail: "Kleine Kopie des Bildes",
  },

  about: {
    title: "Über",
    lead: "telltale misst, wie gut generierte Bilder noch von Fotos zu unterscheiden sind. Diese App lässt seine Detektoren auf Ihrem Gerät laufen.",
    limitsTitle: "Was sie nicht kann",
    limits: [
      "Sie kennt die Quellen, mit denen sie trainiert wurde. Bilder anderer Generatoren nennt sie womöglich Fotos oder unbekannt.",
      "Kleine oder stark komprimierte Bilder behalten wenige Spuren: Die Fehlerraten neben jedem Urteil sagen, wie wenige.",
      "Das Urteil beruht je nach Modell allein auf dem mittleren Quadrat des Bildes oder auf einigen Ausschnitten: Was die Datei von sich sagt, steht daneben, und nach Wasserzeichen wird nicht gesucht.",
      "Ein Urteil ist ein Hinweis, kein Beweis. Beschuldigen Sie seinetwegen niemanden.",
    ],
    privacyTitle: "Datenschutz",
    privacy:
      "Bilder, Urteile und Verlauf verlassen dieses Gerät nie. Die App fragt beim Start ihre eigene Website nach neuen Versionen, sonst nichts.",
    modelsTitle: "Modelle",
    size: "Größe",
    operations: "Rechenschritte pro Bild",
    macs: (value) => `${count(Math.round(value / 1e6))} Millionen Multiplikationen mit Addition`,
    digest: "sha256",
    knows: "Kennt",
    photographs: "Fotos",
    kept: "Auf diesem Gerät",
    yes: "ja",
    notYet: "noch nicht: Es wird geholt, wenn es gewählt wird",
    keep: "Für die Nutzung ohne Netz behalten",
    training: "Training",
    errorTable: "Fehlerraten nach Art des Bildes",
    neverNearest:
      "Ihre Bilder werden nur mit den Arten ohne Kompression (none) oder mit JPEG (q) verglichen, denn eine Datei sagt nicht, " +
      "was einem Bild vor dem Speichern sonst geschah.",
    errorColumns: {
      kind: "Art",
      falseAlarms: "Fotos, generiert genannt",
      missed: "Generierte Bilder, übersehen",
      missedUnknown: "Übersehen, von nie gesehenen Generatoren",
      photographsUndecided: "Fotos ohne Antwort",
      generatedUndecided: "Generierte Bilder ohne Antwort",
    },
    rateIn: (value) =>
      value.value === null
        ? "–"
        : `${percentExact(value.value)}${value.low === null || value.high === null ? "" : ` (${decimals(1).format(100 * value.low)}–${decimals(1).format(100 * value.high)})`}`,
    selfTest: "Selbsttest ausführen",
    selfTestRunning: "Test läuft …",
    selfTestPassed: (difference, provider) =>
      `Bestanden: Die Antworten liegen höchstens ${difference.toExponential(1)} neben den veröffentlichten (${provider}).`,
    selfTestFailed: (difference, tolerance, provider) =>
      `Nicht bestanden: Die Antworten weichen um ${difference.toExponential(1)} ab, mehr als ${tolerance.toExponential(0)} (${provider}).`,
    computing: "Rechnen",
    webgpu: "WebGPU verwenden",
    webgpuHint:
      "Rechnet auf dem Grafikprozessor. Ein Download von 28\u00a0MB, einmal beim Einschalten. Ergebnisse können in den letzten Stellen abweichen.",
    webgpuFailed: (detail) => `WebGPU ist hier nicht verwendbar, es bleibt bei WebAssembly: ${detail}`,
    now: (provider) => `In Gebrauch: ${provider}.`,
    picturesTitle: "Vergleichsbilder",
    pictures:
      "Sie zeigen, dass die App arbeitet und wie schnell; um zu sagen, wie gut ein Modell ist, sind sie zu wenige und zu leicht. Die eigenen der App " +
      "sind sieben gemeinfreie oder unter CC0 stehende Fotos aus dem Paket scikit-image und sieben Bilder von telltales kleinem Diffusionsmodell, " +
      "das mit solchen Fotos trainiert wurde. Wer die App veröffentlicht, kann andere beilegen.",
    licencesTitle: "Lizenzen",
    licences: "Die Netze laufen auf ONNX Runtime Web (MIT-Lizenz, Microsoft). Die Lizenztexte liegen der App bei.",
    version: (version) => `Version ${version}`,
  },
};

function tested(kind: Kind): string {
  const saved = kind.testedQuality === null ? "ohne weitere Kompression" : `JPEG-Qualität ${kind.testedQuality}`;
  return `${count(kind.testedSide)} Pixel, ${saved}`;
}

function shareOf({ value, n }: Rate): string {
  const share = value ?? 0;
  if (n < 100) return `${count(Math.round(share * n))} von ${count(n)}`;
  if (share === 0) return `keines von ${count(n)}`;
  const ofHundred = Math.round(100 * share);
  if (ofHundred === 0) return "weniger als 1 von 100";
  return ofHundred === 100 && share < 1 ? "mehr als 99 von 100" : `${ofHundred} von 100`;
}

function unanswered({ photographsUndecided, generatedUndecided }: Errors): string {
  const [photographs, generated] = [photographsUndecided, generatedUndecided].map((rate) => (rate?.value ? shareOf(rate) : null));
  const parts = [photographs && `${photographs} Fotos`, generated && `${generated} generierten Bildern`].filter((part) => part);
  if (parts.length === 0) return "";
  return ` Keine Antwort gab es bei ${photographs === generated ? photographs : parts.join(" und ")}.`;
}

function sample(value: Rate, of: string): string {
  if (value.value === null) return `keine ${of}`;
  const interval =
    value.low === null || value.high === null
      ? "zu wenige für ein Intervall"
      : `95-%-Intervall ${decimals(1).format(100 * value.low)} bis ${decimals(1).format(100 * value.high)} von 100`;
  return `${count(value.n)} ${of} (${interval})`;
}
