/** The texts of `texts.ts` in Italian. */

import type { Rate } from "./network/card";
import type { Kind } from "./network/decision";
import { count, counted, decimals, isClose, milliseconds, percentExact } from "./numbers";
import type { Errors, Texts } from "./texts";

export const italian: Texts = {
  name: "telltale",
  tabs: { detect: "Controlla", evaluate: "Valuta", history: "Cronologia", about: "Info" },
  mainNavigation: "Schermate",
  skip: "Vai al contenuto",

  insecure: "Questa app richiede un indirizzo sicuro (https o localhost): altrove i browser non permettono la memoria offline.",
  start: "Quasi pronto…",
  startFailed: (detail) => `L'app non è partita: ${detail}.`,
  fault: (detail) => `Qualcosa è andato storto: ${detail}`,

  update: {
    app: "È pronta una nuova versione dell'app.",
    reload: "Usala ora",
    models: (names) => `${names.length === 1 ? "Nuovo modello" : "Nuovi modelli"}: ${names.join(", ")}.`,
    dismiss: "Chiudi",
  },

  detect: {
    title: "Fotografia o generata?",
    lead: "Controlla le immagini. Restano su questo dispositivo: nulla viene inviato.",
    camera: "Scatta una foto",
    choose: "Scegli immagini",
    hint: "Una o molte. Puoi anche incollare immagini, trascinarle qui, anche con una cartella, o condividerle con questa app.",
    drop: "Rilascia le immagini per controllarle",
    notAPicture: "In ciò che hai incollato o trascinato non c'è alcuna immagine.",
    nothingShared: "Con la condivisione non è arrivata alcuna immagine. Sceglila qui, oppure salvala e condividila di nuovo.",
    working: "Sto guardando l'immagine…",
    loadingModel: (name) => `Carico il modello ${name}…`,
    verdictTitle: "Verdetto",
    picture: (kind) => `L'immagine, ${kind.format}, lato minore di ${count(kind.shorterSide)} pixel`,
    model: "Modello",
    modelOption: (name, size, isKept) => `${name} (${size})${isKept ? "" : ", non ancora su questo dispositivo"}`,
    scores: "Punteggi",
    scoreOf: (name, probability) => `${name} ${decimals(3).format(probability)}`,
    line: "La soglia",
    lineIs: ({ pFake, threshold, photographThreshold }) =>
      photographThreshold === null
        ? `${decimals(3).format(pFake)} per tutti i generatori insieme; da ${decimals(3).format(threshold)} un'immagine di queste dimensioni conta come generata`
        : `${decimals(3).format(pFake)} per generata; da ${decimals(3).format(threshold)} un'immagine di queste dimensioni è detta probabilmente generata, ` +
          `sotto ${decimals(3).format(photographThreshold)} probabilmente una fotografia`,
    sources: "Se è generata, da quale",
    zoom: "Immagine: i tasti più, meno e 0 la ingrandiscono e la riducono",
    share: "Salva o condividi questo risultato",
    cardLimits: "Una stima automatica, non una prova: su questa immagine può sbagliare.",
    evidence: "Dove sono gli indizi",
    showEvidence: "Mostrali sull'immagine",
    evidenceFor: "Indizi per",
    evidenceLegend: (name, ofWindows) =>
      `I punti arancioni parlano per ${name}, quelli blu contro, rispetto alle altre fonti e al punto più forte di questa ` +
      `immagine. Si ${ofWindows ? "guardano solo i riquadri segnati" : "guarda solo il quadrato centrale"}. Mostra che cosa ha mosso il modello, non che cosa è falso.`,
    errorsTitle: "Quanto fidarsi",
    details: "Dettagli",
    time: "Tempo",
    times: (graph, decode, reduce) =>
      `${milliseconds(graph)} per il modello, ${milliseconds(decode)} per decodificare, ${milliseconds(reduce)} per leggere e ridurre`,
    computedBy: "Calcolato con",
    digest: "File del modello",
    digestIs: (digest) => `sha256 ${digest.slice(0, 12)}…`,
    familiarity: "Familiarità",
    familiarityIs: (name, value, threshold) =>
      `${name} ${decimals(3).format(value)}; sconosciuta sotto ${decimals(3).format(threshold)}`,
    reduced: (width, height) => `ridotta a ${count(width)} × ${count(height)} pixel per il modello`,
    windows: (number, side) =>
      `il modello guarda ${counted(number, "riquadro", "riquadri")} di ${count(side)} × ${count(side)} pixel originali`,
    file: "Immagine",
  },

  many: {
    order: "Ordine",
    orders: { given: "Come scelte", probability: "Prima le più simili a generate", name: "Per nome" },
    unnamed: (place) => `Immagine ${count(place)}`,
    back: "Torna all'elenco",
    summary: (all, generated, photographs, unanswered, unread) =>
      `${counted(all, "immagine", "immagini")}: ${counted(generated, "generata", "generate")}, ${counted(photographs, "fotografia", "fotografie")}, ` +
      `${count(unanswered)} senza risposta${unread === 0 ? "" : `, ${counted(unread, "non leggibile", "non leggibili")}`}.`,
  },

  verdict: (verdict, source, isProbable) => {
    if (verdict === "cannot-tell" || verdict === "unknown-source") return "Impossibile dirlo";
    if (verdict === "photograph") return isProbable ? "Probabilmente una fotografia" : "Fotografia";
    return `${isProbable ? "Probabilmente generata" : "Generata"}${source === null ? "" : `: ${source}`}`;
  },
  unknownMeans:
    "L'immagine non somiglia a quelle con cui questo modello è stato addestrato: perciò non dà risposta. Non significa che venga da un generatore " +
    "sconosciuto: la maggior parte delle immagini di tali generatori riceve una risposta.",
  formatMeans: "Questo modello non è stato provato con file di questo formato: perciò non dà risposta.",
  betweenMeans: "L'immagine sta fra le due soglie, dove questo modello sbaglierebbe troppo spesso: perciò non dà risposta.",
  modelName: (name, isDemonstration) => (isDemonstration ? `${name} (dimostrazione)` : name),
  demonstration: "Dimostrazione",
  demonstrationMeans:
    "Questo modello è partito da pesi casuali. Mostra come funziona l'app; ciò che dice di un'immagine non vale nulla.",
  scale: {
    photograph: "Fotografia",
    between: "Impossibile dirlo",
    generated: "Generata",
    line: "Il segno è la soglia: da lì in poi un'immagine di queste dimensioni conta come generata.",
    lines:
      "I segni sono le due soglie: da quella destra in poi un'immagine di queste dimensioni è detta probabilmente generata, a sinistra " +
      "dell'altra probabilmente una fotografia. Fra le due non c'è risposta.",
    where: ({ verdict, reason, pFake, threshold, photographThreshold }) => {
      if (verdict === "unknown-source" || reason === "unfamiliar" || reason === "format") return "La posizione dice poco: la scala vale per le fonti che il modello conosce.";
      if (verdict === "cannot-tell") return "Fra le due soglie.";
      const isGenerated = verdict === "generated";
      const close = isClose(pFake, isGenerated ? threshold : (photographThreshold ?? threshold));
      const line = photographThreshold === null ? "la soglia" : isGenerated ? "la soglia destra" : "la soglia sinistra";
      const side = isGenerated ? "sopra" : "sotto";
      return close ? `Appena ${side} ${line}: per poco.` : `${isGenerated ? "Sopra" : "Sotto"} ${line}.`;
    },
  },
  errors: (errors) => {
    const { falseAlarms, missed, missedUnknown } = errors;
    if (falseAlarms.value === null && missed.value === null) return "Quanto spesso sbaglia con immagini di questo tipo non è stato provato.";
    const called = falseAlarms.value === null ? null : `ha detto generate ${shareOf(falseAlarms)} fotografie`;
    const overlooked = missed.value === null ? null : `non ha riconosciuto ${shareOf(missed)} immagini generate`;
    const neverSeen =
      overlooked && missedUnknown?.value != null ? `; di generatori mai visti, ${shareOf(missedUnknown).replace(/ su 100$/, "")}` : "";
    return `Nelle nostre prove con questo tipo ${[called, overlooked].filter((each) => each !== null).join(" e ")}${neverSeen}.${unanswered(errors)}`;
  },
  errorsDetail: ({ falseAlarms, missed, missedUnknown, kind }) => {
    const others = missedUnknown?.value != null ? `, più ${sample(missedUnknown, "immagini di generatori mai visti", "")}` : "";
    return (
      `Di questo tipo (${tested(kind)}) c'erano ${sample(falseAlarms, "fotografie", "nessuna fotografia")} e ` +
      `${sample(missed, "immagini generate", "nessuna immagine generata")}${others}. Altre fotocamere, generatori e ritocchi non sono stati provati.`
    );
  },
  kind: (kind) =>
    `${kind.format}${kind.jpegQuality === null ? "" : ` di qualità ${kind.jpegQuality}`}, lato minore di ${count(kind.shorterSide)} pixel`,

  providers: { wasm: "WebAssembly, un thread della CPU", webgpu: "WebGPU, con la riduzione sulla CPU" },

  file: {
    title: "Che cosa dice il file stesso",
    apart: "Accanto al verdetto, che si basa soltanto sui pixel.",
    says: ({ c2pa, digitalSourceType, generatorTexts, camera }) => {
      const said = [
        c2pa && "Sono allegate le Content Credentials (un manifesto C2PA). Sono firmate, ma qui la firma non è stata verificata: un verificatore può farlo.",
        digitalSourceType !== null &&
          `Il tipo di fonte digitale IPTC è ${digitalSourceType}. L'ha scritto chi ha salvato il file; chiunque può cambiarlo o toglierlo.`,
        generatorTexts.length > 0 &&
          `Contiene le impostazioni di un generatore (${generatorTexts.join(", ")}). Le scrivono i programmi che generano immagini; si tolgono, o si scrivono in una fotografia, con la stessa facilità.`,
        camera !== null && `È nominata una fotocamera: ${camera}. Qualunque programma può scriverlo.`,
      ].filter((each) => each !== false);
      return said.length > 0 ? said : ["Nulla della sua origine. È normale: la maggior parte delle app e dei siti lo toglie."];
    },
  },

  badPicture: {
    empty: "Il file è vuoto.",
    truncated: "L'immagine è incompleta: il file si interrompe.",
    unreadable:
      "Questa non è un'immagine che questo browser sappia leggere, qualunque sia il suo nome. Se un altro programma la mostra, salvala lì come JPEG e scegli quella.",
    "too-large": "L'immagine ha più di 100 megapixel, o il suo file più di 1 GB.",
    "too-small": "L'immagine è troppo piccola: il lato minore deve avere almeno 16 pixel.",
    "too-narrow":
      "L'immagine è troppo piccola o troppo stretta: il lato minore deve avere almeno 16 pixel, anche quando il maggiore è ridotto a 1024.",
    unsupported:
      "Questo browser non mostra immagini di questo tipo (come HEIC, TIFF, JPEG XL, JPEG 2000 o file raw). Salvala come JPEG, senza rimpicciolirla, e scegli quella.",
    "out-of-memory": "Su questo dispositivo non c'è memoria sufficiente per un'immagine di queste dimensioni.",
  },
  tooSmallForWindows: (side, [height, width]) =>
    "Impossibile dirlo: in un'immagine così piccola le tracce sono perdute. Questo modello guarda i pixel originali e ne vuole almeno " +
    `${count(side)} per lato; questa immagine ha ${count(width)} × ${count(height)} pixel.`,
  badModel: (detail) => `Il modello non si può usare: ${detail}.`,
  badModels: (details) => `${details.length === 1 ? "Un modello non si può" : "Alcuni modelli non si possono"} usare. ${details.join(" ")}`,
  modelFault: {
    newer: "è stato fatto per una versione più nuova di questa app: ricarica la pagina, in rete",
    card: (card, file) => `la scheda ${card} e la rete ${file} non vanno insieme; chi pubblica l'app deve mettere la coppia giusta`,
    other: (file, other) =>
      `la rete ${file} e la sua scheda non vanno insieme: è il file di ${other}; chi pubblica l'app deve mettere la coppia giusta`,
    notItsCards: (file, expected, got) =>
      `la rete ${file} e la sua scheda non vanno insieme: la scheda è di sha256 ${expected}, il file ha ${got}; chi pubblica l'app deve mettere la coppia giusta`,
    damaged: (file, expected, got) => `${file} è danneggiato: atteso sha256 ${expected}, trovato ${got}`,
  },
  storageFull: "Il modello ora risponde, ma non si è potuto conservarlo per l'uso offline: su questo dispositivo non c'è posto.",

  evaluate: {
    title: "Valuta",
    lead: "Prova i modelli su molte immagini, su questo dispositivo: quanto sono veloci e, dove la verità è nota, quanto spesso hanno ragione.",
    models: "Modelli",
    pictures: "Immagini",
    bundled: (n) => (n === 0 ? "Immagini di riferimento (nessuna inclusa)" : `${counted(n, "immagine", "immagini")} di riferimento dell'app`),
    own: "Le mie",
    folder: "Scegli una cartella",
    files: "Scegli immagini",
    ownHint:
      "Le cartelle di nome “real”, o di una fonte del modello, o “fake” dicono che cosa sono le immagini che contengono; delle altre non è noto.",
    chosen: (n, labelled) => `${counted(n, "immagine scelta", "immagini scelte")}, la verità è nota di ${count(labelled)}`,
    start: "Avvia",
    stop: "Ferma",
    progress: (done, of) => `${count(done)} di ${count(of)} immagini`,
    stopped: "Fermato prima della fine.",
    results: "Risultati",
    perPicture: "Tempi per immagine, del solo modello. Decodifica e lettura sono a parte, sotto.",
    columns: {
      measure: "Misura",
      pictures: "Immagini",
      right: "Giuste, di tutte le note",
      answered: "Con risposta, di tutte",
      median: "Tempo mediano",
      mean: "Tempo medio",
      p95: "95º percentile",
      total: "Tempo totale",
    },
    share: (part, all) => (all === 0 ? "–" : `${percentExact(part / all)} (${part}\u00a0di\u00a0${all})`),
    failsSelfTest: "qui non supera l'autotest: non contato",
    cannotBeUsed: "qui non si può usare: non contato",
    notHere: "non ancora su questo dispositivo",
    unlabelled: "Che cosa è stato detto delle immagini di cui la verità non è nota",
    picture: "Immagine",
    decoding: (mean, median, p95, total) =>
      `Decodifica e lettura: media ${milliseconds(mean)}, mediana ${milliseconds(median)}, p95 ${milliseconds(p95)}, totale ${milliseconds(total)}.`,
    confusion: (model) => `${model}: che cosa sono le immagini (righe) e che cosa ha detto (colonne)`,
    truth: "Verità",
    photograph: "Fotografia",
    someGenerator: "Un generatore",
    unknown: "Nessuna risposta",
    failures: (n) => `${counted(n, "file", "file")} senza risposta: non leggibili o troppo piccoli per il modello`,
    csv: "Salva come CSV",
    nothing: "Scegli almeno un modello e un'immagine.",
  },

  history: {
    title: "Cronologia",
    lead: "Conservata solo su questo dispositivo.",
    empty: "Ancora nulla. Le immagini che controlli appaiono qui.",
    keep: "Conserva la cronologia",
    full: "La risposta vale, ma non si è potuta conservare nella cronologia: su questo dispositivo non c'è posto. Elimina voci vecchie, o disattiva la cronologia.",
    open: "Apri",
    close: "Chiudi",
    ofBefore: "Una versione precedente dell'app non ha conservato altro di questa risposta.",
    remove: (what) => `Elimina ${what}`,
    removeShort: "Elimina",
    removeAll: "Elimina tutto",
    removeAllSure: "Eliminare tutta la cronologia? Non si può annullare.",
    cancel: "Annulla",
    entry: (model, when) => `${when} · ${model}`,
    thumbnail: "Piccola copia dell'immagine",
  },

  about: {
    title: "Info",
    lead: "telltale misura quanto bene si distinguono ancora le immagini generate dalle fotografie. Questa app ne esegue i rilevatori sul tuo dispositivo.",
    limitsTitle: "Che cosa non può fare",
    limits: [
      "Conosce le fonti con cui è stata addestrata. Le immagini di altri generatori possono risultare fotografie o sconosciute.",
      "Le immagini piccole o molto compresse conservano poche tracce: i tassi di errore accanto a ogni verdetto dicono quanto poche.",
      "Il verdetto si basa soltanto sul quadrato centrale dell'immagine o su alcuni suoi riquadri, secondo il modello: ciò che il file dice di sé sta accanto, e le filigrane non si cercano.",
      "Un verdetto è un indizio, non una prova. Non accusare nessuno per questo.",
    ],
    privacyTitle: "Privacy",
    privacy:
      "Immagini, verdetti e cronologia non lasciano mai questo dispositivo. All'avvio l'app chiede al proprio sito se ci sono nuove versioni, e nient'altro.",
    modelsTitle: "Modelli",
    size: "Dimensione",
    operations: "Operazioni per immagine",
    macs: (value) => `${count(Math.round(value / 1e6))} milioni di moltiplicazioni e somme`,
    digest: "sha256",
    knows: "Conosce",
    photographs: "fotografie",
    kept: "Su questo dispositivo",
    yes: "sì",
    notYet: "non ancora: si scarica quando lo scegli",
    keep: "Conserva per l'uso offline",
    training: "Addestramento",
    errorTable: "Tassi di errore per tipo di immagine",
    neverNearest:
      "Le tue immagini si confrontano solo con i tipi senza compressione (none) o con JPEG (q), perché un file non dice " +
      "che altro è successo a un'immagine prima di essere salvata.",
    errorColumns: {
      kind: "Tipo",
      falseAlarms: "Fotografie dette generate",
      missed: "Immagini generate non riconosciute",
      missedUnknown: "Non riconosciute, di generatori mai visti",
      photographsUndecided: "Fotografie senza risposta",
      generatedUndecided: "Immagini generate senza risposta",
    },
    rateIn: (value) =>
      value.value === null
        ? "–"
        : `${percentExact(value.value)}${value.low === null || value.high === null ? "" : ` (${decimals(1).format(100 * value.low)}–${decimals(1).format(100 * value.high)})`}`,
    selfTest: "Esegui l'autotest",
    selfTestRunning: "Provo…",
    selfTestPassed: (difference, provider) =>
      `Superato: le risposte distano al più ${difference.toExponential(1)} da quelle pubblicate (${provider}).`,
    selfTestFailed: (difference, tolerance, provider) =>
      `Non superato: le risposte distano ${difference.toExponential(1)}, più di ${tolerance.toExponential(0)} (${provider}).`,
    computing: "Calcolo",
    webgpu: "Usa WebGPU",
    webgpuHint:
      "Calcola sul processore grafico. Un download di 28\u00a0MB, una volta, quando lo attivi. I risultati possono differire nelle ultime cifre.",
    webgpuFailed: (detail) => `Qui WebGPU non si può usare, resta attivo WebAssembly: ${detail}`,
    now: (provider) => `In uso: ${provider}.`,
    picturesTitle: "Immagini di riferimento",
    pictures:
      "Mostrano che l'app funziona e quanto è veloce; sono troppo poche e troppo facili per dire quanto vale un modello. Quelle proprie dell'app sono sette " +
      "fotografie di pubblico dominio o CC0, dal pacchetto scikit-image, e sette immagini del piccolo modello a diffusione di telltale, " +
      "addestrato su fotografie simili. Chi pubblica l'app può includerne altre.",
    licencesTitle: "Licenze",
    licences: "Le reti girano su ONNX Runtime Web (licenza MIT, Microsoft). I testi delle licenze sono tra i file dell'app.",
    version: (version) => `Versione ${version}`,
  },
};

function tested(kind: Kind): string {
  const saved = kind.testedQuality === null ? "senza altra compressione" : `qualità JPEG ${kind.testedQuality}`;
  return `${count(kind.testedSide)} pixel, ${saved}`;
}

function shareOf({ value, n }: Rate): string {
  const share = value ?? 0;
  if (n < 100) return `${count(Math.round(share * n))} su ${count(n)}`;
  if (share === 0) return `0 su ${count(n)}`;
  const ofHundred = Math.round(100 * share);
  if (ofHundred === 0) return "meno di 1 su 100";
  return ofHundred === 100 && share < 1 ? "più di 99 su 100" : `${ofHundred} su 100`;
}

function unanswered({ photographsUndecided, generatedUndecided }: Errors): string {
  const [photographs, generated] = [photographsUndecided, generatedUndecided].map((rate) => (rate?.value ? shareOf(rate) : null));
  const parts = [photographs && `${photographs} fotografie`, generated && `${generated} immagini generate`].filter((part) => part);
  if (parts.length === 0) return "";
  return ` Non ha dato risposta a ${photographs === generated ? photographs : parts.join(" e ")}.`;
}

function sample(value: Rate, of: string, none: string): string {
  if (value.value === null) return none;
  const interval =
    value.low === null || value.high === null
      ? "troppo poche per un intervallo"
      : `intervallo al 95\u00a0% da ${decimals(1).format(100 * value.low)} a ${decimals(1).format(100 * value.high)} su 100`;
  return `${count(value.n)} ${of} (${interval})`;
}
