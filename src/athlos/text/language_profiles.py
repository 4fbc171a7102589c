"""Profiles of the detector `script`: scripts that settle a language, and frequent words of the Latin ones.

The words are function words and everyday words written down for this file, none taken from a corpus. They serve twice:
as words, and as the source of character n-grams that judge the words not listed.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import cache, lru_cache

VERSION = "1"
"""Raise it whenever a profile or the scoring changes: it is part of the detector's id."""

SCRIPT_RANGES: dict[str, tuple[tuple[int, int], ...]] = {
    "latin": (
        (0x41, 0x5A),
        (0x61, 0x7A),
        (0xAA, 0xAA),
        (0xBA, 0xBA),
        (0xC0, 0x24F),
        (0x1E00, 0x1EFF),
        (0xFF21, 0xFF5A),
    ),
    "greek": ((0x370, 0x3FF), (0x1F00, 0x1FFF)),
    "cyrillic": ((0x400, 0x52F),),
    "armenian": ((0x531, 0x587),),
    "hebrew": ((0x5D0, 0x5EA),),
    "arabic": ((0x620, 0x6FF), (0x750, 0x77F), (0xFB50, 0xFDFF), (0xFE70, 0xFEFC)),
    "devanagari": ((0x900, 0x97F),),
    "bengali": ((0x980, 0x9FF),),
    "gurmukhi": ((0xA00, 0xA7F),),
    "gujarati": ((0xA80, 0xAFF),),
    "tamil": ((0xB80, 0xBFF),),
    "telugu": ((0xC00, 0xC7F),),
    "kannada": ((0xC80, 0xCFF),),
    "malayalam": ((0xD00, 0xD7F),),
    "sinhala": ((0xD80, 0xDFF),),
    "thai": ((0xE01, 0xE5B),),
    "lao": ((0xE81, 0xEDF),),
    "myanmar": ((0x1000, 0x109F),),
    "georgian": ((0x10A0, 0x10FF),),
    "ethiopic": ((0x1200, 0x137F),),
    "khmer": ((0x1780, 0x17D3),),
    "hangul": ((0x1100, 0x11FF), (0x3131, 0x318E), (0xAC00, 0xD7A3)),
    "kana": ((0x3041, 0x309F), (0x30A0, 0x30FF), (0xFF66, 0xFF9D)),
    "han": ((0x3005, 0x3007), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF)),
}
LANGUAGE_OF_SCRIPT = {
    "greek": "el", "cyrillic": "ru", "armenian": "hy", "hebrew": "he", "arabic": "ar", "devanagari": "hi",
    "bengali": "bn", "gurmukhi": "pa", "gujarati": "gu", "tamil": "ta", "telugu": "te", "kannada": "kn",
    "malayalam": "ml", "sinhala": "si", "thai": "th", "lao": "lo", "myanmar": "my", "georgian": "ka",
    "ethiopic": "am", "khmer": "km", "hangul": "ko", "kana": "ja", "han": "zh",
}  # fmt: skip
"""One language a script. Others of the same script (Ukrainian, Persian, Marathi) are taken for it: use lingua there."""

LATIN_DISCOUNT = 0.5
"""Weight of a Latin letter against one of another script: names and terms stand in Latin letters everywhere."""
MIN_KANA_SHARE = 0.1
"""Share of kana among kana and Han letters from which a text is Japanese; Chinese only quotes some."""

# fmt: off
WORDS: dict[str, str] = {
    "cs": """
        a aby aj ale ani asi až bez bude budeme budou by byl byla byli bylo byly být během celkem co což další
        den deset devět dnes do dobrý dohromady dolarů dva dvě děti ho i jak jako je jeden jedna jedno jeho
        jejich jen jestli ještě ji jich jim jiné již jsem jsi jsme jsou jste já jí k každá každý kde kdo kdy
        když ke kolem kolik korun která které který kteří ku let lidé lidí mají malý mezi mi mnoho moc mohou
        možná musí muž my má mám máme mít město může na nad například naše ne nebo neboť nebyl nebylo nejsou
        není než nic nich nová nové nový nám nás náš ním ně něco nějak nějaký o od odpověď on ona oni ono osm
        pak po pod podle pokud potom pouze pro proto protože proč první práce právě pět před přes při roce rok
        roku s se sedm si stejně svou své svých svůj ta tak takto také takže tam tato te tedy ten to toho tom
        tomto tu ty tyto této tím těch tři u už v ve velký velmi vláda vy více výsledek však všech všechno
        všichni z za zbývá zde ze země čas či člověk čtyři řekl řekla šest že ženy
    """,
    "de": """
        aber acht alle allem allen aller alles als also am an andere anderen antwort anzahl arbeit auch auf aus
        bei beim bereits beträgt bin bis bist da daher damit dann das dass dein dem den denn der des deshalb die
        dies diese diesem diesen dieser dieses doch dollar dort drei du durch ein eine einem einen einer eines
        einige er es etwa etwas euch euro frau fünf für ganz gegen gesagt gibt groß große gut habe haben hat
        hatte hatten heute hier hinter ich ihm ihn ihnen ihr ihre ihrem ihren ihrer im immer in indem insgesamt
        ist ja jahr jahre jahren jede jedem jeden jeder jedes jedoch jetzt kann kein keine keinen kinder kostet
        können könnte land lautet man mann mehr mein menschen minuten mit muss müssen nach nachdem neue neuen
        neuer neun nicht nichts noch nun nur ob oder ohne regierung sagte schon sechs sehr sein seine seinem
        seinen seiner seit sich sie sieben sind so soll sollte sondern sowie stadt stunden tag tage um und uns
        unser unter viel viele vier vom von vor wann war waren warum was weil welche wenn wer werden wie wieder
        wir wird wo worden wurde wurden während zehn zeit zu zum zur zusammen zwei zwischen über übrig
    """,
    "en": """
        a about above after again against all also always am an and another answer any anyone are around as ask
        at away back be because been before being below between both but buys by can cannot children city costs
        could country day days did do does done down during each earns either else end enough even ever every
        few first five for four from gave get gets give go goes going good got government great had has have
        having he her here hers high him his hours house how however i if in into is it its itself just know
        large last left less let like little long made make makes man many may me means might minutes money more
        most much must my need never new next night nine no nor not nothing now number of off often on once one
        only or other our out over own part pays people per put rather right said same say says school see sells
        seven she should since six small so some something spends start still such t take takes than that the
        their them then there therefore these they thing think this those three through time times to today
        together too total two under until up us very was way we week well went were what when where whether
        which while who whole whom whose why will with within without woman won work world would year years yet
        you your
    """,
    "es": """
        a ahora al algo alguien alguna algunas algunos algún allí antes aquí así aunque año años aún bajo bien
        cada cantidad casi cinco ciudad como con contra cosa creo cual cuales cuando cuanto cuatro cuesta cuál
        cuántas cuánto cuántos cómo da de debe deben del desde después dice diez dijo donde dos durante día días
        dólares dónde e el ella ellas ellos en entonces entre era eran eres es esa esas ese eso esos esta estaba
        estamos estar este esto estos estoy está están euros fue fuera fueron gana gasta gente gobierno gran ha
        haber había hace hacen hacer hacia han hasta hay hemos hombre horas hoy la las le les lo los luego me
        mejor menos mi mientras mis mismo mucha muchas mucho muchos mujer mundo muy más nada ni ningún niños no
        nos nosotros nuestra nuestro nueva nueve nuevo nunca o ocho otra otras otro otros para parte país pero
        poco por porque puede pueden pues que queda quedan quien quiere quién qué respuesta se sea según seis
        ser si sido siempre siete sin sino sobre solo somos son su sus sí sólo también tan tanto te tener tengo
        tenía tiempo tiene tienen toda todas todavía todo todos total trabajo tres tu tus tú un una unas uno
        unos usted va vamos veces ver vez vida y ya yo él
    """,
    "fi": """
        aika aina ainoastaan alkaa alle ansiosta asti dollaria edes ei eikä eivät emme en enemmän ennen ensi
        entä eri eräs esimerkiksi että euroa hallitus he heidän heille hyvin hyvä hän hänen häntä ihan ihmiset
        ilman itse ja jo johon joiden joita joka jokainen jonka jos joskus jossa josta jota jotka jotta jäljellä
        jälkeen kahdeksan kaikki kaikkien kaksi kanssa katso kaupunki kautta kerran kerta kertaa keskellä koko
        kolme koska koskaan kuin kuinka kuitenkin kuka kun kuusi kyllä kymmenen lapset lisäksi luona lähes maa
        maksaa me mielestä mies miksi mikä mikään milloin minkä minulla minun minuuttia minä missä mistä miten
        mitä mitään molemmat moni monta mukaan mukana mutta muun muut myöhemmin myös nain nainen ne neljä niiden
        niin niistä niitä noin nuo nyt nähdä näiden näin nämä ole olemme olen olet oli olisi olivat olla olleet
        ollut oma on onko ovat paljon parempi pitää pois päivä päivää saa saada saavat sai sama sanoi se
        seitsemän sekä sen siellä siinä siis siitä sinä sitten sitä suuri taas tai te tehdä tehnyt toinen tulee
        tuli tulla tuntia tuo työ tämä tämän tässä tästä tätä täällä uusi vaan vaikka vain varten vastaan
        vastaus vielä viisi voi voidaan voimme voivat vuoden vuonna vuosi vuotta yhdeksän yhden yhdessä yhteensä
        yhtä yksi yli ympäri
    """,
    "fr": """
        afin ai ainsi alors an année années ans après au aucun aucune aujourd auquel aussi autre autres aux
        avaient avait avant avec avez avoir avons beaucoup bien bon c car ce ceci cela celle celui cent ces cet
        cette ceux chaque chez cinq combien comme comment contre coûte d dans de depuis dernier des deux devant
        dire dit dix doit donc donne dont du elle elles en encore enfants enfin entre est et eu eux faire fait
        femme fois font furent gens gouvernement grand grande heures homme hui huit ici il ils j jamais je jour
        jours jusqu l la le les leur leurs lors lorsque lui là m ma maintenant mais me mes mieux moi moins mois
        mon monde même mêmes n ne neuf ni non nos notre nous nouveau nouvelle on ont ou où par parce parmi pas
        pays pendant peu peut peuvent plus plusieurs plutôt pour pourquoi premier première presque près puis qu
        quand quatre que quel quelle quelles quelque quelques qui quoi reste réponse s sa sans se selon sept
        sera serait ses seulement si six soit son sont sous sur t ta tandis tant te tel temps total toujours
        tous tout toute toutes travail trois trop très tu un une va vers veut vie ville voir vont vos votre vous
        vraiment y à ça étaient était étant été être
    """,
    "id": """
        ada adalah agar akan akhirnya aku anak anda antara apa apabila apakah atas atau bagaimana bagi bahkan
        bahwa banyak baru bawah beberapa begitu belum benar berada berapa berbagai bersama besar biasanya biaya
        bisa boleh bukan cara cukup dalam dan dapat dari datang delapan dengan depan di dia diri dua dunia empat
        enam hanya harga hari harus hingga ia ini itu jadi jam jangan jawaban jika juga jumlah kalau kali kami
        kamu karena kata ke kecil kemudian kepada kerja ketika kita kota kurang lagi lain lainnya laki lalu lama
        lebih lima maka mana masih masing masyarakat mau melakukan memang membeli memberi membuat memiliki
        mempunyai mengatakan menggunakan menit menjadi menunjukkan menurut mereka merupakan meski mungkin namun
        negara nya oleh orang pada paling para pemerintah per perempuan pernah pertama perusahaan pun rumah saat
        saja salah sama sampai sana sangat satu saya sebagai sebelum sebuah secara sedang sehingga sejak
        sekarang selalu selama seluruh sembilan semua sendiri seorang seperti sepuluh sering serta sesuatu
        setelah setiap siapa sini sisa suatu sudah supaya tahun tak tanpa tapi telah tempat tentang terhadap
        terjadi tersebut terus tetapi tiap tidak tiga tujuh uang untuk waktu yaitu yang
    """,
    "it": """
        a abbiamo ad adesso ai al alcune alcuni all alla alle allo allora altra altre altri altro anche ancora
        anni anno appena avere avete aveva avevano bambini ben bene c casa che chi ci ciascuno cinque città come
        con contro cosa costa così cui da dai dal dall dalla dalle dallo davanti de degli dei del dell della
        delle dello dentro deve devono di dice dieci disse donna dopo dove due dunque durante e ecco ed era
        erano essere fa fanno fare fatto fin fino forse fra gente giorni giorno già gli governo grande grandi ha
        hai hanno ho i il in infatti insieme io l la lavoro le lei li lo loro lui lungo ma mai me meglio meno
        mentre mi mia mio modo molta molte molti molto mondo ne negli nei nel nell nella nelle nessuno niente
        noi non nostra nostro nove nulla nuova nuovo o od oggi ogni oltre ora ore otto paese parte per perché
        perciò persone però più poco poi possono potrebbe prima primo proprio può qual qualche quale quali
        quando quanta quante quanti quanto quasi quattro quella quelle quelli quello questa queste questi questo
        qui quindi rimangono risposta sarà se secondo sei sempre senza sette si sia siamo solo sono sopra sta
        stata stati stato stesso su sua sue sugli sul sull sulla suo suoi tanto te tempo ti totale tra tre tutta
        tutte tutti tutto un una uno uomo vi vita voi volta volte è
    """,
    "nl": """
        aan acht achter al alle alleen als altijd ander andere anderen antwoord ben bent beter bij bijna binnen
        blijven boven daar daarom dag dagen dan dat de deze die dit doen doet door drie dus een eens eerste
        eigen elk elke en enkele er erg euro gaan gaat gedaan geeft geen gegeven geld gemaakt geweest gezegd
        ging goed groot grote had hadden heb hebben heeft heel hem het hier hij hoe hoeveel hun ieder iedereen
        iemand iets ik in is ja jaar jaren je jij jou jouw jullie kan keer kinderen komen komt kon konden kost
        kunnen laat land lang later maar maken man me mee meer meest men mensen met mij mijn minder minuten
        moest moet moeten mogen na naar nadat negen net niemand niet niets nieuw nieuwe niks nog nooit nu of om
        omdat onder ons onze ook op opnieuw over overgebleven overheid plaats regering samen sinds slechts staan
        staat stad steeds te tegen ten ter terug terwijl tien tijd tijdens toch toe toen tot totaal tussen twee
        u uit uur uw van vanaf veel verder vier vijf volgens voor vooral vrouw waar waarom wanneer want waren
        was wat we week weer weg wel welke werd werden wereld werk weten wie wij wil wilde willen worden wordt
        zal ze zeer zegt zei zelf zes zeven zich zij zijn zo zoals zodat zonder zou zouden
    """,
    "pl": """
        a aby albo ale ani aż bardzo bez bo byli być był była było były będzie będą chce choć ci ciągu co coś
        czas czasu cztery czy czyli dla dlaczego dlatego dni do dobrze dolarów dwa dwie dwóch dzieci dziesięć
        dziewięć dzień gdy gdyż gdzie go godzin i ich ile im inne innych iż ja jak jaka jakie jako je jeden
        jedna jednak jednego jednym jego jej jemu jest jestem jeszcze jeśli jeżeli już ją każda każdy kiedy
        kilka kobieta kosztuje kraju kto która które którego której który których którzy lat lata lecz lub ludzi
        ludzie ma mają mam mamy mi miasto miał miała mieć mimo między mnie mogą może można mu musi my mężczyzna
        na nad nam nas następnie nasz nasze nawet nic nich nie niego niej nim nimi niż no nowe nowy o obecnie od
        odpowiedź około on ona oni ono oraz osiem osób pan pani pierwszy pięć po pod podczas ponad ponieważ
        powiedział powiedziała poza praca pracy przed przede przez przy raz razem rok roku rząd również sam
        siedem się sobie sposób swoich swoje swoją swój sześć są ta tak także tam te tego tej temu ten teraz to
        tobie trzy tu twój ty tych tylko tym u w we według wie wiele wielu więc więcej wszyscy wszystkie
        wszystko wtedy właśnie z za zawsze ze zostanie został została zostało złotych łącznie świat świecie że
        żeby życie
    """,
    "pt": """
        a acima agora ainda algo algum alguma algumas alguns alguém ali além ano anos antes ao aos apenas após
        aquela aquele aqui as assim através até bem boa bom cada casa cidade cinco coisa com como contra
        crianças cuja custa da das de dela dele deles depois desde dessa desse desta deste dez dia dias dinheiro
        disse diz do dois dos duas durante e ela elas ele eles em embora enquanto entre então era eram essa
        essas esse esses esta estas estava este estes está estão eu exemplo faz fazer foi fora foram gente
        governo grande hoje homem horas há isso isto já lhe lhes longo lá mais mas me melhor menos mesma mesmo
        meu minha muita muitas muito muitos mulher mundo na nada nas nem nenhum nesta neste no nos nossa nosso
        nova nove novo num numa nunca não nós o oito onde ontem os ou outra outras outro outros para parte país
        pela pelas pelo pelos pessoas pode podem por porque porquê portanto pouco primeira primeiro próprio
        próxima quais qual quando quantas quanto quantos quase quatro que quem resposta resta restam se segundo
        seis sem sempre sendo ser será sete seu seus sido sim sob sobre sua suas são só tal talvez também tanto
        te tem tempo tenho ter teve tinha toda todas todo todos total trabalho três tu tudo têm um uma umas uns
        vai vamos vez vezes vida você vocês às é
    """,
    "ro": """
        a acea aceasta această acest acesta aceste acestor acestui aceștia acolo acum ai aia aici al ale alt
        alte altul am an ani anul apoi ar are asemenea asta astfel asupra atunci atât au avea avem avut azi bani
        bine bun bărbat ca cam care ce cea cei cel cele celor chiar cinci cine cineva copii costă cu cum când
        cât câte câteva câți că cărei căror către da dacă dar dat de deci decât deja deoarece departe despre
        deși din dintr dintre doar doi doilea dolari două dumneavoastră după ea ei el ele era eram erau este eu
        fac face facem femeie fi fie fiecare fii fiind foarte fost fu fără guvernul iar l la le li lor lui lume
        lângă mai mare mari mea mele mereu meu mi mie mine mod mult multe multă mulți muncă mâine mă n ne nevoie
        ni nici nimic niște noastră noi nostru nou nouă nu număr o oameni om opt ora oraș ore ori orice pai
        patru pe pentru peste poate pot prea prima primul prin printr puțin puține până rămas rămân răspuns s sa
        sale sau se spune spus sub sunt suntem sus său t ta te timp timpul toate toată tot totul totuși toți
        trebuie trei tu tău un una unde unei unele unii unor unu unui unul va voi vom vor vostru vreo vă zece zi
        zice zile îi îl îmi în înainte încât încă între întreg întrucât își îți șapte șase și țară
    """,
    "sw": """
        aidha ajili alama ali alikuwa alipo alisema ambao ambapo ambaye ambayo ambazo amesema ana ananunua
        anapata anauza anaweza anayo au baada baadhi badala bado bali bila binafsi cha chake chini dakika dhidi
        dola dunia elfu fedha gharama hadi haina haiwezi hakuna halafu hali hapa hapana hasa hata hatua hawa
        hawana haya hayo hii hiki hilo hivi hivyo hiyo hizi hizo huku huo husika huu huyo huyu idadi ikiwa ila
        ili ilikuwa imekuwa ina inaweza ingawa ipi jambo je jibu jinsi jioni jumla juu juzi kabisa kabla kadhaa
        kama kamili karibu kati katika kazi kiasi kibao kikundi kila kimoja kisha kitu kubwa kufanya kuhusu kumi
        kuna kununua kupitia kusema kutoka kutokana kuwa kwa kwake kwamba kwani kwanza kwao kwenda kwenye la
        lake lakini lao lazima leo lile mabao maisha makubwa mambo mara matokeo mbele mbili miaka miezi mji
        mmoja mno mtoto mtu mwaka mwanamke mwanamume mwenye mwezi mwisho na nafasi namna nane nao nchi ndani
        ndio ndiyo ndogo ngapi ni nini nne nusu nyingi nyingine nyumba pamoja pande pekee pesa pia pili saa saba
        sababu sana sasa sawa sehemu serikali shule si siku sita siyo tangu tano tatu tayari tena tisa tofauti
        tu una vile vingi vipi vya wa wakati wake wako walikuwa walisema wana wanafunzi wanaume wanawake wangapi
        wao wapi watoto watu wengi wengine wetu wote ya yake yangu yao yeye yote yule za zaidi zake zao
        zilizobaki zote
    """,
    "tr": """
        acaba altı ama ancak arasında artık aslında ay ayrıca az bana bazı belki ben beni benim beş bile bin bir
        biraz biri birkaç birlikte biz bize bizi bizim bu bulunan buna bunda bundan bunlar bunları bunların bunu
        bunun burada bütün büyük cevap da daha dahil dakika de dedi defa demek devlet değil diye diğer dokuz
        dolar dolayı dört dün dünya düşük edilen ediyor elde en erkek eski et etmek etti eğer fakat fazla gece
        geldi gelen gerek gibi göre gün günü güzel ha hala hangi hatta hem henüz hep hepsi her herkes hiç
        hükümet iki ile ilgili ilk insan insanlar ise itibaren iyi için içinde iş işte kadar kadın kalan kalır
        karşı kaç kendi kendine kendisi ki kim kimse kişi küçük kız mi mu mü mı nasıl ne neden nedenle nerede
        niye o olacak olan olarak oldu olduğu olduğunu olmak olması olmayan olsun olup olur on ona ondan onlar
        onlara onların onu onun oysa para pek saat sadece sahip sana sanki sekiz sen senin siz size sizin son
        sonra söyledi tam tane tarafından toplam tüm var vardı ve verdi veya ya yani yapan yapmak yaptı yedi
        yeni yer yerine yine yirmi yok yüz yüzde yüzden yıl yılında zaman zaten çocuk çocuklar çok çünkü önce
        önemli ötürü öyle ülke üzere üzerinde üç şehir şekilde şey şeyler şimdi şu şunu şöyle
    """,
    "vi": """
        ai anh ba bao biết bà bán bên bạn bảy bất bằng bị bốn bởi chiếc cho chín chính chúng chưa chỉ chị chứ
        con cuối cuộc càng các cách cái câu còn có công cùng cũng cần của cứ do dưới em gia gian giá giới giờ
        giữa gì hai hay hoặc hàng hãy hơn hết hỏi khi khoảng khác không kể la loại là làm lên lúc lại lần lớn
        lời mua muốn mà mươi mười mất mấy mọi mỗi một mới nay ngày người nhau nhiêu nhiều nhà nhân như nhưng
        nhất những nào này nên nó nói năm nơi nước nếu nữ phút phải phần phố phụ phủ qua quá quốc ra riêng rất
        rằng rồi sau sáu sẽ số sự tay theo thành tháng thêm thì thấy thế thể thời thứ tiếng tiền trong trên
        trước trường trả trẻ tuy tuổi tám tên tôi tại tất tổng tới từ từng việc và vài vào vì vẫn vậy về với vừa
        xuống xã yêu ông đang đi điều đàn đáp đâu đây đã đó đô được đấy đầu đến đều để đồng ấy ở
    """,
}
# fmt: on

KNOWN_LANGUAGES = tuple(sorted({*LANGUAGE_OF_SCRIPT.values(), *WORDS}))

NGRAM = 4
"""Longest character n-gram; a word is looked at with a space on either side."""
SMOOTHING = 0.1
"""Added to every n-gram count: an n-gram missing from a few hundred words says little."""
WORD_WEIGHT = 8.0
"""Nats that a listed word is worth, divided among the languages that list it."""

_WORD = re.compile(r"[^\W\d_]+")


def script_of(character: str) -> str | None:
    """Name of the script of a letter or of the vowel signs of a script; None for other characters."""
    return _script_of_codepoint(ord(character))


@lru_cache(maxsize=65536)
def _script_of_codepoint(codepoint: int) -> str | None:
    # Marks count: in Thai and the scripts of India they are half of the vowels.
    if unicodedata.category(chr(codepoint))[0] not in "LM":
        return None
    for script, ranges in SCRIPT_RANGES.items():
        if any(low <= codepoint <= high for low, high in ranges):
            return script
    return None


def classify(text: str) -> str | None:
    """The language of the script with most letters; among Latin ones by words and n-grams. None without a letter."""
    counts = Counter(script for script in map(script_of, text) if script is not None)
    if not counts:
        return None
    num_kana = counts.get("kana", 0)
    num_east_asian = num_kana + counts.pop("han", 0)
    counts.pop("kana", None)
    # A Han character is a word or half of one: weigh it like the letters it replaces.
    weights = {**counts, "latin": LATIN_DISCOUNT * counts["latin"], "han": 2 * num_east_asian}
    script = max(weights, key=lambda name: (weights[name], name))
    if script == "latin":
        return classify_latin(_WORD.findall(text.lower()))
    if script == "han":
        return "ja" if num_kana >= MIN_KANA_SHARE * num_east_asian and num_kana else "zh"
    return LANGUAGE_OF_SCRIPT[script]


def classify_latin(words: Iterable[str]) -> str:
    """The Latin-script language with the highest score; ties go to the first code of the alphabet."""
    totals = dict.fromkeys(WORDS, 0.0)
    for word in words:
        for language, score in zip(WORDS, _word_scores(word), strict=True):
            totals[language] += score
    return max(totals, key=lambda language: totals[language])


def _ngrams(word: str) -> list[str]:
    padded = f" {word} "
    return [
        padded[i : i + n] for n in range(1, NGRAM + 1) for i in range(len(padded) - n + 1) if padded[i : i + n] != " "
    ]


@cache
def _listed() -> dict[str, frozenset[str]]:
    return {language: frozenset(words.split()) for language, words in WORDS.items()}


@cache
def _ngram_log_probs() -> dict[str, tuple[float, ...]]:
    """Log probability of each n-gram in each language, centred over languages; absent ones are not listed."""
    counts = {language: Counter(g for w in sorted(words) for g in _ngrams(w)) for language, words in _listed().items()}
    known = sorted(set().union(*counts.values()))
    totals = {language: sum(count.values()) + SMOOTHING * len(known) for language, count in counts.items()}
    table = {}
    for ngram in known:
        logs = [math.log((counts[language][ngram] + SMOOTHING) / totals[language]) for language in WORDS]
        mean = sum(logs) / len(logs)
        table[ngram] = tuple(log - mean for log in logs)
    return table


@lru_cache(maxsize=65536)
def _word_scores(word: str) -> tuple[float, ...]:
    """Evidence of one word for each language of `WORDS`, in nats; the n-grams count once a letter, not once each."""
    ngrams = [scores for ngram in _ngrams(word) if (scores := _ngram_log_probs().get(ngram)) is not None]
    evidence = [sum(column) / NGRAM for column in zip(*ngrams, strict=True)] if ngrams else [0.0] * len(WORDS)
    homes = [language for language, words in _listed().items() if word in words]
    if not homes:
        return tuple(evidence)
    return tuple(
        score + (WORD_WEIGHT / len(homes) if language in homes else 0.0)
        for language, score in zip(WORDS, evidence, strict=True)
    )
