"""Words for made-up posts, in several scripts. Nobody wrote these posts; nobody's text is copied."""

from __future__ import annotations

SENTENCES = (
    "the tram was late again and nobody minded",
    "first tomatoes of the year",
    "does anyone know a good repair shop for accordions",
    "reading about moss, it is more interesting than it sounds",
    "today I learned that otters have pockets",
    "new draft is up, comments welcome",
    "this is your reminder to drink some water",
    "what a goal",
    "the cat has opinions about the keyboard",
    "so tired of this rain",
    "lovely light on the harbour this morning",
    "hot take: soup is a drink",
    "finally fixed the bug, it was a missing comma",
    "who else is watching this",
    "I would like to thank the person who invented naps",
    "train strike tomorrow, plan ahead",
    "my plants are all alive, a personal record",
    "can confirm",
    "no notes",
    "agreed, and also the second season was better",
    "das Wetter wird morgen besser, sagen sie",
    "heute gibt es Kartoffelsuppe",
    "bom dia a todos",
    "que dia lindo no parque",
    "今日はいい天気ですね",
    "猫がまた箱に入っている",
    "おやすみなさい",
    "quelle belle soirée au bord du canal",
    "mañana empieza la feria del libro",
    "오늘 점심은 김치찌개",
    "дождь идёт третий день",
    "صباح الخير",
    "🎉🎉🎉",
    "🐈 👉 📦",
    "ok 👍🏽",
    "new phone, who dis 👩‍👩‍👧‍👦",
)
LANGUAGES = ("en", "en", "en", "en", "de", "pt", "ja", "fr", "es", "ko", "ru", "en-GB", "pt-BR")
HASHTAGS = ("gardening", "birds", "football", "python", "photography", "猫", "nowplaying")
LINKS = ("https://example.com/a", "https://example.org/articles/2025/01", "https://news.example.net/?id=17&x=y")
