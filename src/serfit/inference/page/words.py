"""What the page says, in every language it speaks.

Braces hold what is filled in; a test checks that every language fills in the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from serfit.errors import UserError
from serfit.labels import Dimension


@dataclass(frozen=True, slots=True)
class Words:
    """The texts of one language.

    Attributes:
        own_name: the language's name for itself.
        locale: BCP 47 tag, for the browser.
    """

    own_name: str
    locale: str
    title: str
    intro: str
    choose_language: str
    one_network: str
    networks: str
    scale: str
    tested: str
    expected: str
    speech: str
    limits: str
    privacy: str
    reading: str
    listening: str
    mean: str
    whole: str
    spread: str
    dimensions: Mapping[Dimension, str]
    poles: Mapping[Dimension, str]
    through_time: str
    path: str
    averaged: str
    time: str
    rating: str
    unit: str
    start: str
    end: str
    table: str
    download: str
    meaning: str
    too_big: str
    too_long: str
    too_short: str
    unreadable: str
    damaged: str
    gone: str
    failed: str


ENGLISH = Words(
    own_name="English",
    locale="en",
    title="Emotion in speech",
    intro="Record or drop speech, and see how its emotion is heard through time.",
    choose_language="Language",
    one_network="one network",
    networks="{count} networks, whose mean counts",
    scale="scale {minimum:g} to {maximum:g}",
    tested="CCC on its own test speech: {scores}",
    expected="CCC to expect, reached in cross-validation with the same settings: {scores}",
    speech="Speech",
    limits="At most {minutes:g} min and {megabytes:g} MB: WAV, FLAC, Ogg, Opus, MP3 or AIFF.",
    privacy="Your recording goes to the machine that serves this page and nowhere else, and is deleted once heard.",
    reading="Reading the recording",
    listening="Listening: {done:.0f} of {total:.0f} s",
    mean="Mean of {count} windows of {window:g} s, one every {hop:g} s.",
    whole="The whole recording of {window:.2f} s, heard at once.",
    spread="± is the standard deviation over the networks.",
    dimensions={"valence": "Valence", "arousal": "Arousal", "dominance": "Dominance"},
    poles={
        "valence": "unpleasant to pleasant",
        "arousal": "calm to excited",
        "dominance": "weak to strong",
    },
    through_time="Emotion through time",
    path="Path",
    averaged="means of {count} windows",
    time="time",
    rating="rating",
    unit="on [0, 1]",
    start="start",
    end="end",
    table="All windows",
    download="Download as CSV",
    meaning=(
        "These are estimates of how listeners would rate the voice, not of what anybody feels. Silence, music, noise "
        "and speech unlike the training speech get numbers too; those mean little. Values may lie a little beyond the "
        "scale."
    ),
    too_big="This file is larger than {megabytes:g} MB; cut it, or save it as FLAC, Ogg or MP3.",
    too_long=(
        "This recording lasts {minutes:.1f} min, and at most {most:g} min are heard here; cut it, or use "
        "“serfit predict”, which takes hours."
    ),
    too_short="This recording lasts {milliseconds:.0f} ms, and {least:.0f} ms are the least; record a little more.",
    unreadable="This file can't be read as audio; convert it to WAV, FLAC, Ogg, Opus, MP3 or AIFF and try again.",
    damaged="This file is damaged or cut short; export or record it again.",
    gone="This recording is no longer here; choose it again.",
    failed="This recording couldn't be heard; try another, or ask whoever serves this page to look at its messages.",
)

CHINESE = Words(
    own_name="中文",
    locale="zh-CN",
    title="语音情感",
    intro="录制或拖入一段语音，查看其情感随时间的变化。",
    choose_language="语言",
    one_network="单个网络",
    networks="{count} 个网络，取其均值",
    scale="量表 {minimum:g} 至 {maximum:g}",
    tested="在其自身测试集上的 CCC：{scores}",
    expected="预期的 CCC（相同设置的交叉验证结果）：{scores}",
    speech="语音",
    limits="最长 {minutes:g} 分钟，最大 {megabytes:g} MB；支持 WAV、FLAC、Ogg、Opus、MP3 和 AIFF。",
    privacy="录音只会传到提供本页面的机器，不会传到别处，分析完毕即删除。",
    reading="正在读取录音",
    listening="正在分析：{done:.0f} / {total:.0f} 秒",
    mean="{count} 个窗口的均值，窗长 {window:g} 秒，每 {hop:g} 秒一个。",
    whole="整段录音（{window:.2f} 秒）作为一个窗口分析。",
    spread="± 为各网络之间的标准差。",
    dimensions={"valence": "效价", "arousal": "唤醒度", "dominance": "支配度"},
    poles={"valence": "从不愉快到愉快", "arousal": "从平静到激动", "dominance": "从弱势到强势"},
    through_time="情感随时间的变化",
    path="轨迹",
    averaged="每 {count} 个窗口取均值",
    time="时间",
    rating="评分",
    unit="[0, 1]",
    start="起点",
    end="终点",
    table="全部窗口",
    download="下载 CSV",
    meaning=(
        "这些数值估计的是听者会如何评价这段声音，而不是说话人的真实感受。静音、音乐、噪声以及与训练语音差异较大的"
        "语音也会得到数值，但意义不大。数值可能略微超出评分范围。"
    ),
    too_big="文件超过 {megabytes:g} MB；请剪短，或另存为 FLAC、Ogg 或 MP3。",
    too_long="录音长 {minutes:.1f} 分钟，本页面最多分析 {most:g} 分钟；请剪短，或使用能处理长录音的 “serfit predict”。",
    too_short="录音只有 {milliseconds:.0f} 毫秒，至少需要 {least:.0f} 毫秒；请录得长一些。",
    unreadable="无法将此文件作为音频读取；请转换为 WAV、FLAC、Ogg、Opus、MP3 或 AIFF 后重试。",
    damaged="文件已损坏或不完整；请重新导出或重新录制。",
    gone="录音已不在服务器上；请重新选择。",
    failed="无法分析这段录音；请换一段，或请提供本页面的人查看服务器的消息。",
)

GERMAN = Words(
    own_name="Deutsch",
    locale="de",
    title="Emotion in der Stimme",
    intro="Sprache aufnehmen oder hierher ziehen und sehen, wie ihre Emotion im Lauf der Zeit gehört wird.",
    choose_language="Sprache",
    one_network="ein Netz",
    networks="{count} Netze, deren Mittel zählt",
    scale="Skala {minimum:g} bis {maximum:g}",
    tested="CCC auf den eigenen Testdaten: {scores}",
    expected="zu erwartende CCC, erreicht in der Kreuzvalidierung mit denselben Einstellungen: {scores}",
    speech="Sprache",
    limits="Höchstens {minutes:g} min und {megabytes:g} MB: WAV, FLAC, Ogg, Opus, MP3 oder AIFF.",
    privacy=(
        "Die Aufnahme geht nur an den Rechner, der diese Seite bereitstellt, und wird gelöscht, sobald sie gehört ist."
    ),
    reading="Aufnahme wird gelesen",
    listening="Wird gehört: {done:.0f} von {total:.0f} s",
    mean="Mittel von {count} Fenstern zu {window:g} s, alle {hop:g} s eines.",
    whole="Die ganze Aufnahme von {window:.2f} s, auf einmal gehört.",
    spread="± ist die Standardabweichung zwischen den Netzen.",
    dimensions={"valence": "Valenz", "arousal": "Erregung", "dominance": "Dominanz"},
    poles={
        "valence": "unangenehm bis angenehm",
        "arousal": "ruhig bis aufgeregt",
        "dominance": "schwach bis stark",
    },
    through_time="Emotion im Lauf der Zeit",
    path="Weg",
    averaged="Mittel von je {count} Fenstern",
    time="Zeit",
    rating="Bewertung",
    unit="auf [0, 1]",
    start="Anfang",
    end="Ende",
    table="Alle Fenster",
    download="Als CSV herunterladen",
    meaning=(
        "Geschätzt wird, wie Zuhörer die Stimme bewerten würden, nicht, was jemand fühlt. Auch Stille, Musik, Lärm und "
        "Sprache, die den Trainingsdaten nicht gleicht, bekommen Zahlen; sie bedeuten wenig. Werte können etwas "
        "außerhalb der Skala liegen."
    ),
    too_big="Diese Datei ist größer als {megabytes:g} MB; bitte kürzen oder als FLAC, Ogg oder MP3 speichern.",
    too_long=(
        "Diese Aufnahme dauert {minutes:.1f} min, gehört werden hier höchstens {most:g} min; bitte kürzen oder "
        "„serfit predict“ verwenden, das auch Stunden schafft."
    ),
    too_short="Diese Aufnahme dauert {milliseconds:.0f} ms, nötig sind {least:.0f} ms; bitte mehr aufnehmen.",
    unreadable=(
        "Diese Datei lässt sich nicht als Audio lesen; bitte in WAV, FLAC, Ogg, Opus, MP3 oder AIFF umwandeln und noch "
        "einmal versuchen."
    ),
    damaged="Diese Datei ist beschädigt oder unvollständig; bitte neu exportieren oder aufnehmen.",
    gone="Diese Aufnahme ist nicht mehr da; bitte noch einmal auswählen.",
    failed=(
        "Diese Aufnahme ließ sich nicht auswerten; bitte eine andere versuchen oder den Betreiber der Seite bitten, "
        "dessen Meldungen anzusehen."
    ),
)

SPANISH = Words(
    own_name="Español",
    locale="es",
    title="Emoción en la voz",
    intro="Grabe o arrastre aquí una voz y vea cómo se percibe su emoción a lo largo del tiempo.",
    choose_language="Idioma",
    one_network="una red",
    networks="{count} redes, de las que cuenta la media",
    scale="escala de {minimum:g} a {maximum:g}",
    tested="CCC en sus propios datos de prueba: {scores}",
    expected="CCC esperable, alcanzado en validación cruzada con los mismos ajustes: {scores}",
    speech="Voz",
    limits="Como máximo {minutes:g} min y {megabytes:g} MB: WAV, FLAC, Ogg, Opus, MP3 o AIFF.",
    privacy="La grabación solo va a la máquina que sirve esta página y se borra en cuanto se ha escuchado.",
    reading="Leyendo la grabación",
    listening="Escuchando: {done:.0f} de {total:.0f} s",
    mean="Media de {count} ventanas de {window:g} s, una cada {hop:g} s.",
    whole="Toda la grabación de {window:.2f} s, escuchada de una vez.",
    spread="± es la desviación típica entre las redes.",
    dimensions={"valence": "Valencia", "arousal": "Activación", "dominance": "Dominancia"},
    poles={
        "valence": "de desagradable a agradable",
        "arousal": "de tranquila a agitada",
        "dominance": "de débil a fuerte",
    },
    through_time="La emoción a lo largo del tiempo",
    path="Recorrido",
    averaged="medias de {count} ventanas",
    time="tiempo",
    rating="valoración",
    unit="en [0, 1]",
    start="inicio",
    end="fin",
    table="Todas las ventanas",
    download="Descargar como CSV",
    meaning=(
        "Se estima cómo valorarían la voz los oyentes, no lo que alguien siente. El silencio, la música, el ruido y "
        "las voces distintas de las del entrenamiento también reciben números, que significan poco. Los valores pueden "
        "salirse un poco de la escala."
    ),
    too_big="Este archivo supera los {megabytes:g} MB; recórtelo o guárdelo como FLAC, Ogg o MP3.",
    too_long=(
        "Esta grabación dura {minutes:.1f} min y aquí se escuchan como máximo {most:g} min; recórtela o use "
        "«serfit predict», que admite horas."
    ),
    too_short="Esta grabación dura {milliseconds:.0f} ms y hacen falta al menos {least:.0f} ms; grabe un poco más.",
    unreadable="Este archivo no se puede leer como audio; conviértalo a WAV, FLAC, Ogg, Opus, MP3 o AIFF.",
    damaged="Este archivo está dañado o incompleto; vuelva a exportarlo o a grabarlo.",
    gone="Esta grabación ya no está aquí; vuelva a elegirla.",
    failed="No se pudo analizar esta grabación; pruebe con otra o pida a quien sirve la página que mire sus mensajes.",
)

LANGUAGES: Mapping[str, Words] = {"en": ENGLISH, "zh": CHINESE, "de": GERMAN, "es": SPANISH}
"""By the code that stands in the page's address; the first is taken where nothing else is wished."""


def spoken(code: str) -> str:
    """A language that the page speaks. Raises UserError for others."""
    if code not in LANGUAGES:
        raise UserError(f"--language is {code} and must be one of {', '.join(LANGUAGES)}")
    return code


def wished(header: str) -> str:
    """The language of the page that a browser wishes most.

    Args:
        header: its Accept-Language (RFC 9110, section 12.5.4); anything else counts as no wish.

    >>> wished("fr-CH, zh-TW;q=0.7, en;q=0.3"), wished("de;q=0, es;q=0.1"), wished("tlh")
    ('zh', 'es', 'en')
    """
    best, weight = next(iter(LANGUAGES)), 0.0
    for part in header.split(","):
        tag, _, quality = part.partition(";")
        name, _, value = quality.strip().partition("=")
        try:
            counts = float(value) if name.strip() == "q" else 1.0
        except ValueError:
            continue
        code = tag.strip().lower().partition("-")[0]
        if code in LANGUAGES and counts > weight:
            best, weight = code, counts
    return best
