"""The words and sentences that stories are made of."""

from __future__ import annotations

from miniweb.grammar import listed

NAMES = listed(
    "Lotta|Anselm|Hilde|Otis|Clara|Bram|Willa|Jonas|Greta|Felix|Nora|Edwin|Tilda|Oscar|Maud|Rufus|Ida|Casper|"
    "Flora|Hugo|Ella|Barnaby|Agnes|Milo|Stella|Tobias|Hester|Leo|Poppy|Walter|Mabel|Arthur|Dora|Finn|Edith|Simon|"
    "Olive|Victor|Martha|Silas|Daisy|Rowan|Esther|Jasper|Lucy|Theo|Wanda|Henry|Rose|Abel"
)

WORDS: dict[str, list[str]] = {
    "animal": listed(
        "fox|hedgehog|badger|otter|owl|hare|squirrel|crow|frog|mole|wolf|sparrow|beaver|toad|heron|kitten|"
        "old dog|little goat|grey mouse|white goose|young bear|brown hen|shy deer|fat pigeon"
    ),
    "person": listed(
        "miller|shepherd|widow|fisherman|blacksmith|ferryman|postman|cook|clockmaker|grandmother|schoolmaster|"
        "hunter|weaver|sailor|stranger|king's messenger|travelling singer|beekeeper|night watchman|candle maker|"
        "carpenter|old soldier|bookbinder|cheese seller|well digger|charcoal burner|map maker|washerwoman"
    ),
    "thing": listed(
        "brass key|silver spoon|wooden box|old map|blue lantern|broken clock|small bell|woollen scarf|"
        "glass bottle|copper kettle|leather book|toy boat|red kite|pair of boots|clay pot|golden button|"
        "paper crown|tin whistle|bag of seeds|round mirror|feather pen|carved stick|lucky coin|straw hat|"
        "rope ladder|pocket knife|china cup|painted drum|velvet bag|iron hook"
    ),
    "treasure": listed(
        "hidden garden|stone that glows at night|lost song of the valley|oldest apple tree|sleeping bell|"
        "king's forgotten library|lake with two moons|silver bridge|talking well|clock without hands|"
        "house on the hill|ship in the sand|tower of the winds|door under the roots|flower that opens in snow|"
        "cave of paintings|spring of warm water|lighthouse behind the fog|wheel that never stops|"
        "tree full of lanterns|path of white stones|last wild horse"
    ),
    "place": listed(
        "village|forest|harbour|mountain|valley|market|old mill|river bank|castle|farm|meadow|island|orchard|"
        "lane|bridge|quarry|churchyard|mountain pass|fishing town|marsh|crossroads|vineyard|lighthouse|barn|"
        "school|inn|ruined tower|boat house|windmill|toll gate"
    ),
    "adjective": listed(
        "small|quiet|clever|old|strange|gentle|brave|careful|merry|lonely|patient|curious|stubborn|kind|proud|"
        "cheerful|hungry|tired|honest|nervous|thoughtful|restless|shy|stern"
    ),
    "feeling": listed(
        "glad|afraid|proud|sad|surprised|angry|calm|worried|hopeful|ashamed|grateful|confused|excited|lonely|"
        "relieved|puzzled|weary|cross"
    ),
    "weather": listed(
        "rain|snow|wind|fog|thunder|sunshine|frost|hail|mist|drizzle|a warm breeze|a cold draught|moonlight|heavy cloud"
    ),
    "meal": listed(
        "bread and butter|a bowl of soup|two boiled eggs|a slice of pie|roasted chestnuts|honey cakes|"
        "cold potatoes|a jar of plums|fried mushrooms|oat biscuits|a wedge of cheese|blackberry jam|"
        "hot dumplings|a baked apple|smoked herring|a pot of lentils|pickled cucumbers|warm milk"
    ),
    "time": listed(
        "one morning|that evening|before dawn|at noon|late in autumn|in the middle of winter|"
        "on the first day of spring|after supper|on market day|on a Tuesday|at midnight|the next day|"
        "three days later|when the bells rang|just after breakfast|on the longest night|at the end of summer|"
        "a week later"
    ),
    "verb": listed("walked|ran|climbed|wandered|hurried|marched|crept|rowed|travelled|limped|strolled|rode|stumbled"),
    "said": listed("said|whispered|answered|called|replied|muttered|laughed|cried|explained|grumbled|sighed|declared"),
    "slowly": listed(
        "slowly|quietly|quickly|carefully|at once|without a word|with a sigh|with a smile|bravely|politely|"
        "in a hurry|as softly as possible|with both hands|for the second time"
    ),
    "part": listed(
        "roof|window|gate|chimney|garden wall|cellar|kitchen|stairs|attic|doorstep|hay loft|well|stable|fence|"
        "fireplace|back door|bell rope|wood pile|shelf|curtain"
    ),
    "job": listed(
        "mend nets|count the sheep|sweep the yard|carry water|chop wood|bake bread|polish the lamps|dig potatoes|"
        "feed the hens|paint the fence|write letters|sort the apples|repair the roof|wash the blankets|"
        "pick cherries|sharpen the knives|tell stories|light the fires|dry the herbs|stack the hay"
    ),
    "number": listed("two|three|four|five|six|seven|eight|nine|ten|a dozen|twenty|forty|a hundred"),
    "virtue": listed(
        "patience|courage|kindness|honesty|hard work|a good friend|listening|sharing|a calm head|trust|curiosity|"
        "a promise|laughter|good manners|asking for help|a warm heart"
    ),
    "colour": listed("blue|green|dark|golden|pale|grey|crimson|bright|silvery|brown|misty|rosy"),
    "relative": listed(
        "grandmother|grandfather|aunt|uncle|older sister|younger brother|cousin|neighbour|teacher|godfather|"
        "mother|father"
    ),
    "sound": listed(
        "a knock|a long whistle|the ringing of a bell|a splash|footsteps|a creak|somebody singing|a low growl|"
        "the crack of a branch|a burst of laughter|the beat of a drum|a faint cry"
    ),
}

# Acts of a story in their order, each with its possible sentences. {h} the hero, {f} the friend, {r} the thing looked
# for, {p} the home place, {q} the far place, {t} a thing carried, {he} {him} {his} the hero's pronouns.
ACTS: list[tuple[str, int, int, list[str]]] = [
    (
        "opening",
        3,
        4,
        [
            "once there [was|lived] a {adjective} [child|girl|boy|youngster] called {h} in a {place} near the {p}",
            "{h} [lived|grew up] with {his} {relative} at the edge of the {p}, where {weather} [was common|came often]",
            "in the days when the {p} still had a {person}, a {adjective} [youth|child] called {h} lived there",
            "nobody in the {p} was as {adjective} as {h}, and nobody could {job} [so well|half as fast|with more care]",
            "the house of {h} stood beside the {p} and had a {colour} {part} and a [leaking|crooked|mossy] {part}",
            "every [day|week|morning], {h} had to {job} and {job} for the {person}",
            "for [{number} years|a long while], {h} had helped the {adjective} {person} to {job}",
            "there was a {place} behind the {p}, and beyond it [nobody|hardly anybody|only the {person}] had ever gone",
            "{h} was {number} years old and already knew how to {job}, but had never seen the {q}",
            "people in the {p} liked to {job} in the morning and [to sing|to dance|to sit together] when it was dark",
            "above the door of the {person} hung a {thing}, and {h} [wondered|had asked] where it came from",
            "the {relative} of {h} owned a {thing}, which [was older than the {p}|had belonged to a {person}]",
            "{h} shared a [small room|narrow bed|corner of the attic] with a {animal} that {h} had found in a {place}",
            "all through the [winter|summer], {h} slept near the {part} and dreamed about the {q}",
            "it is told that the {p} was built by a {adjective} {person} who owned nothing but a {thing}",
            "when {h} was [small|very young], {his} {relative} used to tell {him} about the {r}",
        ],
    ),
    (
        "wish",
        3,
        5,
        [
            "{time}, a {person} came to the {p} and spoke [of|about] the {r}",
            "{h} wanted to find the {r} [more than anything|before the year was over|and to come home again]",
            '"[have you ever|did you ever|has anyone ever] [seen|looked for] the {r}?" asked the {relative} of {h}',
            "in the {part} {h} found a letter which said that the {r} lay somewhere beyond the {q}",
            "a {animal} had told the {person} that whoever found the {r} would [never be {feeling}|always be welcome]",
            "{h} was {feeling} when {he} heard [the news|this tale|that story], and could not {job} any more",
            '"[somebody|one of us] must go to the {q}," {said} the {person}, "because the {thing} [is gone|is broken]"',
            "the {p} had [lost|sold|broken] its {thing}, and without it the people could not {job}",
            "so {h} packed {meal} and a {thing}, and promised to be back before the [frost|harvest|new moon]",
            "{h} asked {f}, who was {adjective} and could {job}, to come along [on the journey|to the {q}]",
            '"I will go with you," {said} {f}, "if we take the {t} and {meal}"',
            "{f} was [the best friend|a cousin|a neighbour] of {h} and was never {feeling} for long",
            "the {relative} [shook {his} head|said nothing|only smiled] and gave {h} the {t} for the road",
            "that night {h} lay awake, {feeling} and {feeling}, and listened to the {weather} at the {part}",
            "{h} had a plan that was [simple|bold|not very good], and {f} thought it was [wonderful|rather silly]",
            "the {person} warned them of the {adjective} {animal} that [lived in|guarded|slept under] the {q}",
        ],
    ),
    (
        "road",
        4,
        7,
        [
            "they {verb} along the {place} until [their feet hurt|the sun went down|the {weather} stopped them]",
            "{time}, {h} and {f} reached a {place} where a {person} was trying to {job}",
            "the road led past a {place} with a {colour} {part}, and then [down|up] to a {adjective} {place}",
            "there was {weather} for {number} [days|hours], and [everything they had|the {thing}] got wet",
            "{f} {verb} ahead {slowly} while {h} carried the {t} and {meal}",
            "at the [second|third|last] bend they met a {animal} that looked {feeling} and would not move",
            "they slept in a {place}, under a {part}, and ate {meal} for [breakfast|supper]",
            "to cross the {place} they had to pay the {person} with a {thing}",
            "{h} heard {sound} from the {place} and stopped {slowly}",
            "a {colour} light [moved|shone|danced] over the {place}, but it was only a {person} with a {thing}",
            "on the way {f} taught {h} how to {job}, and {h} taught {f} a [song|riddle|game] from the {p}",
            "the map showed a {place}, but where it should have been there was [only|just] a {place} full of {weather}",
            "{number} [crows|geese|sheep|goats] followed them as far as the {place} and then turned back",
            "beyond the {place} the grass was {colour}, and the air smelled of {meal}",
            "{h} lost a [shoe|glove|button] in the {place} and found a {thing} in its stead",
            "they asked a {person} for the way to the {q}, and were sent [left|right|back] to the {place}",
            "because it was late they knocked at a {part}, and a {adjective} {person} gave them {meal}",
            "they had walked for {number} miles when {f} [noticed|saw|remembered] that the {t} was missing",
            "the {place} was so [dark|quiet|narrow] that they {verb} hand in hand, and nobody wanted to be first",
            "in a {place} they helped to {job} and were paid with {meal} and a {thing}",
            "a {person} on a [grey horse|tired mule|hay cart] took them along as far as the {place}",
            "once they got lost and {verb} in a circle around the same {place} until {time}",
        ],
    ),
    (
        "meeting",
        4,
        7,
        [
            "at the {q} a {adjective} {animal} sat on [a stone|a {part}|an empty barrel] and looked at them {slowly}",
            '"what are you doing [here|in my {place}]?" the {animal} {said} {slowly}',
            '"we are looking for the {r}," {said} {h}, "and we have [come from|walked all the way from] the {p}"',
            '"[nobody|no child] has asked me that for {number} years," {said} the {animal}, and looked {feeling}',
            '"you must first bring me a {thing}," {said} the {animal}, "and then {meal}"',
            "the {animal} told them about a {person} who had once hidden a {thing} in the {part}",
            "{h} offered {meal} to the {animal}, and after that it was less {feeling}",
            '"I can show you the way to the {place}," {said} the {animal}, "but [you must not speak|I am {feeling}]"',
            "{f} did not trust the {animal}, since it [smiled too much|never blinked|spoke like a {person}]",
            '"[listen|look|wait]," {said} {f}, "I can hear {sound} behind the {part}"',
            "the {animal} asked them a riddle about a {thing} and a {person}, and {h} thought about it until {time}",
            '"is it true that you can {job}?" asked {h}, who was {feeling} but tried to look {adjective}',
            "they sat together by the {part}, shared {meal}, and spoke about the {weather} of the year before",
            '"my {relative} was a {person}," {said} the {animal}, "and [left|gave] me nothing but this {thing}"',
            "the {animal} wore a {thing} around its neck, which made {f} laugh [aloud|until it hurt]",
            '"if you help me to {job}," the {animal} {said}, "I will tell you [a secret|what I know|where it is]"',
            "so {h} began to {job} while {f} went to look for a {thing} in the {place}",
            "it took them {number} [hours|days] to {job}, and the {animal} watched [every step|with one eye open]",
        ],
    ),
    (
        "trouble",
        4,
        6,
        [
            "but {time} the {weather} grew [stronger|worse|wild], and the {part} of the {place} began to shake",
            "suddenly {f} slipped on the {part} and fell [into|towards] the {place}",
            "the {t} broke into {number} pieces, and {h} was so {feeling} that {he} [sat down|shouted|could not speak]",
            "a {person} had followed them from the {place} and now [stole|grabbed|hid] the {thing}",
            "the door was locked, and the {thing} that should open it lay at the bottom of the {place}",
            "{h} called for {f}, but there was no answer, only {sound} [far away|from the {part}]",
            '"we will never find it," {said} {f}, who was {feeling} and had eaten nothing but {meal}',
            "they quarrelled about the {thing}, and {f} {verb} away [in anger|without saying goodbye]",
            "the water rose to the {part}, and the {animal} [could not swim|was trapped|ran in circles]",
            "behind the {part} stood a {adjective} {person} with a {thing}, who [barred|blocked] the way",
            "a fire had started in the {part} because somebody had forgotten to {job}",
            "{h} had made a mistake, and the {person} of the {q} was {feeling} [about it|with them both]",
            "all {meal} was gone, the {t} was wet, and it was [still|at least] {number} miles to the {place}",
            "the path ended at a {place} with no bridge, and [it was getting dark|the {weather} hid the other side]",
            "out of the {place} came {sound}, and then {sound}, and then nothing at all",
            "the {person} laughed at them and said that children should {job} and [not dream|stay at home]",
            "{h} felt {feeling}, for the {relative} had warned {him} about [exactly this|such a {place}]",
        ],
    ),
    (
        "help",
        4,
        6,
        [
            "then {h} remembered what {his} {relative} had said about {virtue} and the {thing}",
            "{h} tied the {t} to the {part} and pulled {slowly} until it [gave way|moved a little|came loose]",
            "the {animal} ran to the {place} and came back with a {person} and {number} [ropes|lanterns|helpers]",
            "{f} came back {slowly}, said sorry, and held out a {thing}",
            '"take my [hand|coat|hat]," {said} {f}, "and do not look at the {part}"',
            "together they began to {job}, first {slowly} and then faster, until the {weather} was over",
            "{h} thought for a while, laughed, and put the {thing} on top of the {part}",
            "it turned out that the {person} was only {feeling}, because nobody had ever helped to {job}",
            "with the {t} they could reach the {part}, and behind it was [an old stair|a small room|a passage]",
            "{h} told the {person} the whole story, from the {p} to the {place}, and left nothing out",
            "the {person} became {feeling} and [opened the {part}|put down the {thing}|offered them {meal}]",
            "one by one they carried the [stones|planks|baskets] away, and {time} the way was free",
            "a {animal} [bit through|untied|gnawed] the rope, as a thank you for {meal}",
            "{h} made a [raft|ladder|lamp|bridge] from a {thing} and a piece of the {part}",
            '"why did you not ask [us|me] before?" the {person} {said}, and lit the {part} with a {thing}',
            "{f} whistled the song of the {p}, and the {animal} came {slowly} out of the {place}",
            "the answer to the riddle was {virtue}, and {h} said it {slowly}",
        ],
    ),
    (
        "finding",
        3,
        5,
        [
            "and there, behind the {part} of the {place}, was the {r}, [just as|smaller than] promised",
            "{h} could hardly believe that the {r} had been so close to the {place} [all the time|for all those years]",
            "the {r} was {colour} and {colour}, and around it there was {weather} although it was {time}",
            "{f} [danced|wept|sat down] for joy, and even the {animal} looked {feeling}",
            "they stayed near the {r} for {number} days, ate {meal}, and learned how to {job}",
            "nobody may take the {r} away, but {h} was allowed to keep a {thing} [from it|as a sign]",
            "beside the {r} stood a {part} with a few words about {virtue} [cut into the stone|in faded paint]",
            '"so this is it," {said} {h} {slowly}, "and it was worth [every step|the wet feet|all of it]"',
            "the {person} told them that the {r} had belonged to the {p} [once|since the great {weather}]",
            "when {h} touched the {r}, {he} heard {sound}, and the {place} [lit up|woke up|grew still]",
            "then {h} understood why the {relative} had always kept the {thing} in the {part}",
        ],
    ),
    (
        "ending",
        4,
        6,
        [
            "the way home was [short|easy|long but merry], and {time} they saw the {part} of the {p} again",
            "the people of the {p} came out to meet them with {meal} and a {thing}",
            "{his} {relative} had waited at the {part} [every evening|with a lantern] and was {feeling} and {feeling}",
            "from that day on the {person} and the {animal} were friends, and often {verb} to the {place} together",
            "{h} still has to {job} every morning, but now [sings|smiles|whistles] while doing it",
            "{f} became a {person}, and {h} a {person}, and they [never forgot|often spoke of] the {r}",
            "the {thing} hangs above the {part} now, where [everyone|any child] can see it",
            "whenever there is {weather}, the children of the {p} ask {h} to tell the story again",
            "what {h} had learned was that {virtue} is worth more than a {thing}",
            "and if the {place} has not been [washed away|forgotten], the {r} is still there",
            "so they shared {meal}, lit the {part}, and talked until {time}",
            "the {animal} moved into the {part} and [complains|laughs] about the {weather} to this day",
            "{virtue} and {virtue} had brought them home, and not the {t}",
            "since then nobody in the {p} has been {feeling} for longer than it takes to {job}",
            '"where shall we go next?" {said} {f}, and {h} [pointed|looked|nodded] towards the {place}',
            "a {person} wrote it all down in a book, which lies in the {part} of the {place}",
        ],
    ),
]

TITLES = [
    "{h} and the {r}",
    "how {h} found the {r}",
    "the {adjective} {animal} of the {q}",
    "{h}, {f} and the {t}",
    "a {thing} for the {person}",
    "the road to the {r}",
    "what the {animal} told {h}",
    "the {person} of the {p}",
]

REMARKS = [
    "some say that [it was {weather}|there had been {weather}], others that the {person} had [planned|known] it",
    "the {weather} [came and went|would not end], and somewhere a {person} began to {job}",
    "it smelled of {meal} and of [wet wood|old books|fresh paint|the sea]",
    "a {animal} [watched|slept|waited] beside the {part}, as {adjective} as a {person}",
    "[perhaps|surely] a {adjective} {person} would have [turned back|done it in another way]",
    "there is a saying in the {p} that {virtue} [opens every {part}|is better than {meal}]",
    "the sky over the {place} was {colour}, and the {part} looked {colour} too",
    "{f} counted {number} [stars|steps|windows|stones] and then fell silent",
    "{h} was {feeling}, but not as {feeling} as {f}",
    "for a moment nobody [spoke|moved|laughed], and only {sound} could be heard",
    "it was the kind of {weather} in which one likes to {job} [indoors|and to dream|with friends]",
    "in the {place} somebody had left a {thing} and {meal}",
]
