"""The sentences that callers hear from Twilio's voice, and their translations. Pure.

A number's own texts (disclosure, greeting, closed message) are spoken as written.
"""

from __future__ import annotations

DISCLOSURE = "You are speaking with an AI assistant."
UNAVAILABLE = "We are sorry, our assistant is not available at the moment. Please call again later."
BUSY = "All our lines are busy at the moment. Please call again in a few minutes."
GOODBYE = "We have to end this call here. Thank you for calling. Goodbye."
CLOSED = "We are closed at the moment. Please call again during our opening hours."
WHISPER = "This call was transferred to you."
NOBODY_THERE = "We are sorry, nobody can take your call right now. Please call again later."

SENTENCES = (DISCLOSURE, UNAVAILABLE, BUSY, GOODBYE, CLOSED, WHISPER, NOBODY_THERE)

# In the order of SENTENCES, by BCP 47 language, or by locale where its writing differs.
_TRANSLATIONS = {
    "en": SENTENCES,
    "de": (
        "Sie sprechen mit einem KI-Assistenten.",
        "Leider ist unser Assistent im Moment nicht erreichbar. Bitte rufen Sie später noch einmal an.",
        "Im Moment sind alle Leitungen belegt. Bitte rufen Sie in einigen Minuten noch einmal an.",
        "Wir müssen das Gespräch hier beenden. Vielen Dank für Ihren Anruf. Auf Wiederhören.",
        "Im Moment haben wir geschlossen. Bitte rufen Sie während unserer Öffnungszeiten an.",
        "Dieser Anruf wurde an Sie weitergeleitet.",
        "Leider kann Ihren Anruf gerade niemand annehmen. Bitte rufen Sie später noch einmal an.",
    ),
    "es": (
        "Está hablando con un asistente de inteligencia artificial.",
        "Lo sentimos, nuestro asistente no está disponible en este momento. Por favor, llame más tarde.",
        "Todas nuestras líneas están ocupadas en este momento. Por favor, llame de nuevo en unos minutos.",
        "Tenemos que terminar la llamada aquí. Gracias por llamar. Adiós.",
        "En este momento estamos cerrados. Por favor, llame durante nuestro horario de atención.",
        "Esta es una llamada que le han transferido.",
        "Lo sentimos, nadie puede atender su llamada en este momento. Por favor, llame más tarde.",
    ),
    "fr": (
        "Vous parlez avec un assistant à intelligence artificielle.",
        "Nous sommes désolés, notre assistant n'est pas disponible. Veuillez rappeler plus tard.",
        "Toutes nos lignes sont occupées pour le moment. Veuillez rappeler dans quelques minutes.",
        "Nous devons mettre fin à cet appel. Merci de votre appel. Au revoir.",
        "Nous sommes fermés pour le moment. Veuillez rappeler pendant nos heures d'ouverture.",
        "Cet appel vous a été transféré.",
        "Nous sommes désolés, personne ne peut prendre votre appel. Veuillez rappeler plus tard.",
    ),
    "it": (
        "Sta parlando con un assistente di intelligenza artificiale.",
        "Siamo spiacenti, il nostro assistente non è disponibile. La preghiamo di richiamare più tardi.",
        "Tutte le linee sono al momento occupate. La preghiamo di richiamare tra qualche minuto.",
        "Dobbiamo terminare qui la chiamata. Grazie per averci chiamato. Arrivederci.",
        "Al momento siamo chiusi. La preghiamo di richiamare durante l'orario di apertura.",
        "Questa chiamata le è stata trasferita.",
        "Siamo spiacenti, nessuno può rispondere alla sua chiamata. La preghiamo di richiamare più tardi.",
    ),
    "pt": (
        "Está a falar com um assistente de inteligência artificial.",
        "Lamentamos, o nosso assistente não está disponível neste momento. Por favor, ligue mais tarde.",
        "Todas as nossas linhas estão ocupadas neste momento. Por favor, ligue dentro de alguns minutos.",
        "Temos de terminar a chamada aqui. Obrigado por ligar. Adeus.",
        "Neste momento estamos fechados. Por favor, ligue durante o nosso horário de funcionamento.",
        "Esta é uma chamada que lhe foi transferida.",
        "Lamentamos, ninguém pode atender a sua chamada neste momento. Por favor, ligue mais tarde.",
    ),
    "pt-BR": (
        "Você está falando com um assistente de inteligência artificial.",
        "Desculpe, nosso assistente não está disponível no momento. Por favor, ligue mais tarde.",
        "Todas as nossas linhas estão ocupadas no momento. Por favor, ligue novamente em alguns minutos.",
        "Precisamos encerrar a ligação aqui. Obrigado por ligar. Até logo.",
        "Estamos fechados no momento. Por favor, ligue durante o nosso horário de atendimento.",
        "Esta é uma ligação que foi transferida para você.",
        "Desculpe, ninguém pode atender a sua ligação no momento. Por favor, ligue mais tarde.",
    ),
    "nl": (
        "U spreekt met een AI-assistent.",
        "Het spijt ons, onze assistent is op dit moment niet bereikbaar. Belt u later nog eens.",
        "Al onze lijnen zijn op dit moment bezet. Belt u over enkele minuten nog eens.",
        "Wij moeten het gesprek hier beëindigen. Dank u wel voor het bellen. Tot ziens.",
        "Wij zijn op dit moment gesloten. Belt u tijdens onze openingstijden.",
        "Dit gesprek is naar u doorverbonden.",
        "Het spijt ons, niemand kan uw oproep nu beantwoorden. Belt u later nog eens.",
    ),
    "zh": (
        "您正在与人工智能助理通话。",
        "很抱歉，我们的助理暂时无法为您服务。请稍后再拨。",
        "目前所有线路均忙。请几分钟后再拨。",
        "我们需要在此结束通话。感谢您的来电，再见。",
        "我们目前不在营业时间。请在营业时间内再拨。",
        "这是转接给您的来电。",
        "很抱歉，目前无人接听您的来电。请稍后再拨。",
    ),
    "zh-TW": (
        "您正在與人工智慧助理通話。",
        "很抱歉，我們的助理暫時無法為您服務。請稍後再撥。",
        "目前所有線路均忙線中。請幾分鐘後再撥。",
        "我們需要在此結束通話。感謝您的來電，再見。",
        "我們目前不在營業時間。請在營業時間內再撥。",
        "這是轉接給您的來電。",
        "很抱歉，目前無人能接聽您的來電。請稍後再撥。",
    ),
    "ja": (
        "AIアシスタントがお話ししています。",
        "申し訳ございません。アシスタントはただいまご利用いただけません。後ほどおかけ直しください。",
        "ただいま回線が混み合っております。数分後におかけ直しください。",
        "こちらで通話を終了させていただきます。お電話ありがとうございました。失礼いたします。",
        "ただいま営業時間外です。営業時間内におかけ直しください。",
        "転送されたお電話です。",
        "申し訳ございません。ただいま電話に出ることができません。後ほどおかけ直しください。",
    ),
    "ko": (
        "AI 상담원과 통화하고 계십니다.",
        "죄송합니다. 지금은 상담원을 연결할 수 없습니다. 나중에 다시 전화해 주십시오.",
        "지금은 모든 회선이 통화 중입니다. 몇 분 후에 다시 전화해 주십시오.",
        "여기에서 통화를 마치겠습니다. 전화해 주셔서 감사합니다. 안녕히 계십시오.",
        "지금은 영업시간이 아닙니다. 영업시간에 다시 전화해 주십시오.",
        "전달된 전화입니다.",
        "죄송합니다. 지금은 전화를 받을 수 없습니다. 나중에 다시 전화해 주십시오.",
    ),
}

# Other names of the locales above: Mandarin is `zh` or `cmn`; Hong Kong writes traditional Chinese.
_SAME_TEXT = {"cmn": "zh", "cmn-TW": "zh-TW", "zh-HK": "zh-TW", "yue": "zh-TW", "yue-CN": "zh"}


def translate(sentence: str, language: str) -> str | None:
    """One of SENTENCES in the language, such as `zh-CN`. None if there is no translation."""
    for name in (language, language.partition("-")[0]):
        if translation := _TRANSLATIONS.get(_SAME_TEXT.get(name, name)):
            return translation[SENTENCES.index(sentence)]
    return None
