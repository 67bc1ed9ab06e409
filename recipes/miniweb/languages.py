"""Pages in six other languages, from a small grammar each."""

from __future__ import annotations

import random

from miniweb.grammar import deal, expand, listed, paragraphs

# {n} a name, {w} a place with its preposition, {d} a thing (as an object), {z} a time, {v} weather.
GRAMMARS: dict[str, dict[str, list[str]]] = {
    "de": {
        "n": ["Anneliese", "Gottfried", "Liesel", "Kaspar", "Roswitha", "Theodor"],
        "w": listed("im Dorf|am Fluss|auf dem Markt|hinter der Mühle|im Wald|am alten Hafen|in der Küche|auf dem Berg"),
        "d": listed("einen Schlüssel|ein altes Buch|eine blaue Lampe|einen Brief|ein Fahrrad|eine Kiste|einen Apfel"),
        "z": listed("Am Morgen|Gestern|Im letzten Winter|Nach dem Essen|Kurz vor Mitternacht|An einem Sonntag"),
        "v": ["regnete es", "schneite es", "schien die Sonne", "wehte ein kalter Wind"],
        "s": [
            "{z} fand {n} {w} {d} und wusste nicht, wem das gehörte.",
            "{z} {v}, und {n} blieb lieber zu Hause.",
            "{n} wohnt schon lange {w} und kennt dort jeden Menschen.",
            "Niemand {w} konnte sich erinnern, wann {n} gekommen war.",
            "{z} kaufte {n} {d}, obwohl das Geld kaum reichte.",
            "Die Kinder spielten {w}, während {n} {d} suchte.",
            "{n} und {n} wollten gemeinsam {d} reparieren.",
            "Es war so still {w}, dass man die Uhr ticken hörte.",
            "{z} erzählte {n} eine Geschichte, die alle zum Lachen brachte.",
            "Wenn {n} {w} sitzt, vergisst man leicht die Zeit.",
            "Der Weg nach Hause führte {w} vorbei und war nicht weit.",
            "{n} hatte {d} verloren und fragte überall danach.",
            "{z} kamen viele Leute, um mit {n} zu feiern.",
            "Das Brot war frisch, und {n} schnitt für jeden eine Scheibe ab.",
        ],
    },
    "fr": {
        "n": ["Amandine", "Sylvette", "Odile", "Mathilde", "Clémence"],
        "w": listed("dans le village|près de la rivière|au marché|derrière le moulin|dans la forêt|sur la colline"),
        "d": listed("une clé|un vieux livre|une lampe bleue|une lettre|un vélo|un panier de pommes|une montre"),
        "z": ["Ce matin", "Hier soir", "L'hiver dernier", "Après le repas", "Un dimanche", "Peu avant minuit"],
        "v": ["il pleuvait", "il neigeait", "le soleil brillait", "un vent froid soufflait"],
        "s": [
            "{z}, {n} a trouvé {d} {w} sans savoir à qui cela appartenait.",
            "{z}, {v} et {n} est restée à la maison.",
            "{n} habite {w} depuis longtemps et connaît tous les voisins.",
            "Personne {w} ne se souvenait du jour où {n} était arrivée.",
            "{z}, {n} a acheté {d} avec ses dernières pièces.",
            "Les enfants jouaient {w} pendant que {n} cherchait {d}.",
            "{n} et {n} voulaient réparer {d} ensemble.",
            "Tout était si calme {w} qu'on entendait les oiseaux.",
            "{z}, {n} nous a raconté une histoire qui a fait rire tout le monde.",
            "Quand on est {w}, on oublie facilement le temps qui passe.",
            "Le chemin du retour passait {w} et n'était pas très long.",
            "{n} avait perdu {d} et demandait partout où cela pouvait être.",
            "Le pain était encore chaud, et {n} en a coupé une tranche pour chacun.",
            "{z}, beaucoup de gens sont venus fêter avec {n}.",
        ],
    },
    "es": {
        "n": ["Remedios", "Anselmo", "Jacinta", "Evaristo", "Candelaria", "Rogelio"],
        "w": ["en el pueblo", "junto al río", "en el mercado", "detrás del molino", "en el bosque", "sobre la colina"],
        "d": ["una llave", "un libro viejo", "una lámpara azul", "una carta", "una bicicleta", "una cesta de manzanas"],
        "z": listed("Esta mañana|Ayer|El invierno pasado|Después de comer|Un domingo|Poco antes de medianoche"),
        "v": ["llovía mucho", "nevaba", "brillaba el sol", "soplaba un viento frío"],
        "s": [
            "{z} {n} encontró {d} {w} y no sabía de quién era.",
            "{z} {v}, así que {n} se quedó en casa.",
            "{n} vive {w} desde hace muchos años y conoce a todos.",
            "Nadie {w} recordaba cuándo había llegado {n}.",
            "{z} {n} compró {d}, aunque apenas le alcanzaba el dinero.",
            "Los niños jugaban {w} mientras {n} buscaba {d}.",
            "{n} y {n} querían arreglar {d} entre los dos.",
            "Había tanto silencio {w} que se oían los pájaros.",
            "{z} {n} contó una historia que hizo reír a todo el mundo.",
            "Cuando uno se sienta {w}, se olvida fácilmente del tiempo.",
            "El camino de vuelta pasaba {w} y no era muy largo.",
            "{n} había perdido {d} y preguntaba por todas partes.",
            "El pan estaba recién hecho, y {n} cortó una rebanada para cada uno.",
            "{z} llegó mucha gente para celebrar con {n}.",
        ],
    },
    "it": {
        "n": ["Ermelinda", "Fiorella", "Ortensia", "Ginevra", "Loredana"],
        "w": ["nel paese", "vicino al fiume", "al mercato", "dietro il mulino", "nel bosco", "sulla collina"],
        "d": ["una chiave", "un vecchio libro", "una lampada blu", "una lettera", "una bicicletta", "un cesto di mele"],
        "z": ["Questa mattina", "Ieri", "L'inverno scorso", "Dopo pranzo", "Una domenica", "Poco prima di mezzanotte"],
        "v": ["pioveva forte", "nevicava", "splendeva il sole", "soffiava un vento freddo"],
        "s": [
            "{z} {n} ha trovato {d} {w} e non sapeva di chi fosse.",
            "{z} {v}, quindi {n} è rimasta a casa.",
            "{n} abita {w} da molti anni e conosce tutti.",
            "Nessuno {w} ricordava quando {n} fosse arrivata.",
            "{z} {n} ha comprato {d}, anche se i soldi bastavano appena.",
            "I bambini giocavano {w} mentre {n} cercava {d}.",
            "{n} e {n} volevano riparare {d} insieme.",
            "C'era un tale silenzio {w} che si sentivano gli uccelli.",
            "{z} {n} ha raccontato una storia che ha fatto ridere tutti.",
            "Quando ci si siede {w}, si dimentica facilmente il tempo.",
            "La strada di casa passava {w} e non era molto lunga.",
            "{n} aveva perso {d} e chiedeva dappertutto.",
            "Il pane era appena sfornato, e {n} ne tagliò una fetta per ciascuno.",
            "{z} è venuta molta gente per festeggiare con {n}.",
        ],
    },
    "nl": {
        "n": ["Geertruida", "Wouter", "Liesbeth", "Cornelis", "Hendrikje", "Joost"],
        "w": ["in het dorp", "aan de rivier", "op de markt", "achter de molen", "in het bos", "op de heuvel"],
        "d": ["een sleutel", "een oud boek", "een blauwe lamp", "een brief", "een fiets", "een mand met appels"],
        "z": ["Vanmorgen", "Gisteren", "Vorige winter", "Na het eten", "Op een zondag", "Vlak voor middernacht"],
        "v": ["regende het", "sneeuwde het", "scheen de zon", "waaide er een koude wind"],
        "s": [
            "{z} vond {n} {w} {d} en wist niet van wie dat was.",
            "{z} {v}, dus {n} bleef liever thuis.",
            "{n} woont al heel lang {w} en kent er iedereen.",
            "Niemand {w} kon zich herinneren wanneer {n} gekomen was.",
            "{z} kocht {n} {d}, hoewel er bijna geen geld meer was.",
            "De kinderen speelden {w} terwijl {n} {d} zocht.",
            "{n} en {n} wilden samen {d} herstellen.",
            "Het was zo stil {w} dat je de vogels kon horen.",
            "{z} vertelde {n} een verhaal waar iedereen om moest lachen.",
            "Wie {w} gaat zitten, vergeet al gauw de tijd.",
            "De weg naar huis liep {w} langs en was niet erg lang.",
            "{n} had {d} verloren en vroeg er overal naar.",
            "Het brood was nog warm, en {n} sneed voor ieder een plak af.",
            "{z} kwamen er veel mensen om met {n} feest te vieren.",
        ],
    },
    "ru": {
        "n": ["Агафья", "Марфа", "Глафира", "Матрёна", "Аксинья"],
        "w": ["в деревне", "у реки", "на рынке", "за мельницей", "в лесу", "на холме"],
        "d": ["ключ", "старую книгу", "синюю лампу", "письмо", "велосипед", "корзину яблок"],
        "z": ["Утром", "Вчера", "Прошлой зимой", "После обеда", "В воскресенье", "Незадолго до полуночи"],
        "v": ["шёл дождь", "падал снег", "светило солнце", "дул холодный ветер"],
        "s": [
            "{z} {w} кто-то нашёл {d}, и никто не знал, чьё это.",
            "{z} {v}, поэтому все остались дома.",
            "{n} давно живёт {w} и знает там каждого человека.",
            "Никто {w} не помнил, когда здесь появилась первая дорога.",
            "{z} соседи купили {d}, хотя денег почти не было.",
            "Дети играли {w}, а {n} искала {d}.",
            "Мы хотели вместе починить {d}, но не нашли инструментов.",
            "{w} было так тихо, что слышно было птиц.",
            "{z} нам рассказали историю, которая всех рассмешила.",
            "Когда сидишь {w}, легко забываешь о времени.",
            "Дорога домой была недолгой, и мы шли не спеша.",
            "Бабушка потеряла {d} и спрашивала об этом у всех.",
            "Хлеб был ещё тёплый, и каждому досталось по куску.",
            "{z} пришло много людей, чтобы вместе отпраздновать.",
        ],
    },
}


def foreign_page(language: str, rng: random.Random) -> tuple[str, list[str]]:
    """A title and paragraphs of about 1.5 kB in one of the languages."""
    grammar = GRAMMARS[language]

    def capital(text: str) -> str:
        return text[:1].upper() + text[1:]

    templates = deal(grammar["s"], rng, 12) + deal(grammar["s"], rng, 10)
    sentences = list(dict.fromkeys(capital(expand(template, rng, grammar)) for template in templates))
    return sentences.pop().rstrip("."), paragraphs(sentences, rng)
