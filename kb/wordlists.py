"""Words that sentence splitting and word comparison treat specially, by language."""

# ruff: noqa: SIM905 – a list literal of these would be a thousand lines long

MONTHS = frozenset(
    """january february march april may june july august september october november december jan
    feb mar apr jun jul aug sep sept oct nov dec januar februar märz mai juni juli oktober
    dezember jänner enero febrero marzo abril mayo junio julio agosto septiembre octubre
    noviembre diciembre janvier février mars avril juin juillet août septembre octobre novembre
    décembre januari februari maart mei augustus""".split()
)

# Words that end with a full stop without ending a sentence; compared without the last stop.
TITLES = frozenset(
    """mr mrs ms mx dr prof st sr jr gen col lt capt sgt rep sen gov pres rev hon messrs mme
    mlle hr fr frl sra dra dipl-ing no nos nr fig figs sec eq vol pp p ch art abs par vs ca
    approx cf bzw z.b d.h u.a e.g i.e viz al-""".split()
)
ABBREVIATIONS = TITLES | frozenset(
    """etc al inc ltd co corp llc dept est min max hrs ext tel jan feb mar apr jun jul aug sep
    sept oct nov dec mon tue wed thu fri sat sun ave blvd rd a.m p.m u.s u.k e.u u.n d.c ph.d
    b.a m.a usw evtl ggf inkl str av pág núm ud uds ej p.ex ed eds rev dist univ assn dir""".split()
)

# Words that start a sentence far more often than they follow an abbreviation with a capital.
SENTENCE_OPENERS = frozenset(
    """the a an it this that these those he she they we you i in on at for to if when while
    after before but and or so however there here his her its their our your my what who where
    why how as by with from since because although please do not no yes each all some most many
    der die das ein eine es dies wenn sie er wir ich und aber le la les un une il elle nous vous
    ils elles ce cette si mais et el los las una lo se si pero y o este esta""".split()
)

STOP_WORDS = {
    "english": frozenset(
        """a about above after again against all also am an and any are aren't as at be because
        been before being below between both but by can can't cannot could couldn't did didn't
        do does doesn't doing don't down during each few for from further get had hadn't has
        hasn't have haven't having he her here hers herself him himself his how i i'd i'll i'm
        i've if in into is isn't it it'd it'll its itself just let let's may me might more most
        must mustn't my myself no nor not of off on once only or other ought our ours ourselves
        out over own please same shall shan't she should shouldn't so some such tell than that
        the their theirs them themselves then there these they they're they've this those
        through to too under until up upon us very was wasn't we we'd we'll we're we've were
        weren't what what's when where which while who whom whose why will with within without
        won't would wouldn't yet you you'd you'll you're you've your yours yourself yourselves""".split()
    ),
    "german": frozenset(
        """aber alle allem allen aller alles als also am an ander andere anderem anderen anderer
        auch auf aus bei beim bin bis bist da damit dann das dass dein deine dem den denn der
        des dessen dich die dies diese diesem diesen dieser dieses dir doch dort du durch ein
        eine einem einen einer eines er es etwas euch euer für gegen gewesen hab habe haben hat
        hatte hatten hier hin hinter ich ihm ihn ihnen ihr ihre ihrem ihren ihrer im in indem
        ins ist jede jedem jeden jeder jedes jene jener kann kein keine keinem keinen keiner
        können könnte machen man mein meine mich mir mit muss musste nach nicht nichts noch nun
        nur ob oder ohne sehr sein seine seinem seinen seiner selbst sich sie sind so solche
        soll sollte sondern sonst über um und uns unser unsere unter viel viele vielem vielen vieler vieles vom von vor während
        war waren warum was weg weil weiter welche welchem welchen welcher welches wenn wer
        werde werden wie wieder will wir wird wirst wo wohin wollen wollte wurde wurden würde
        würden zu zum zur zwar zwischen""".split()
    ),
    "french": frozenset(
        """à ai ainsi alors après as au aucun aussi autre aux avait avant avec avez avoir avons
        beaucoup bien c'est car ce ceci cela celle celui ces cet cette ceux chaque comme comment
        d'un d'une dans de depuis des deux doit donc dont du elle elles en encore entre es est
        et étaient était étant été être eu eux fait faire faut il ils j'ai je jusqu la là le les
        leur leurs lui ma mais me même mes moi mon ne ni non nos notre nous on ont ou où par pas
        peu peut peuvent plus pour pourquoi qu'il qu'elle quand que quel quelle quelles quels
        qui quoi sa sans se sera ses si son sont sous sur ta te tes toi ton tous tout toute
        toutes très tu un une vos votre vous y""".split()
    ),
    "spanish": frozenset(
        """a al algo algunas algunos ante antes aquel así aunque cada como con contra cual
        cuales cuál cuáles cuando cuándo cuánto cuántos cómo de del desde donde dónde dos
        durante e el él ella ellas ellos en entre era eran es esa esas ese eso esos esta está
        están estas este esto estos fue fueron ha había han has hasta hay la las le les lo los
        más me mi mis mucho muchos muy nada ni no nos nosotros nuestra nuestro o os otra otras
        otro otros para pero poco por porque puede pueden qué que quien quién quiénes se sea ser
        si sí sido sin sobre son su sus también tanto te tiene tienen todo todos tras tu tus un
        una uno unos usted ustedes y ya yo""".split()
    ),
    "italian": frozenset(
        """a ad agli ai al alla alle allo anche avere aveva c'è che chi ci come con contro cosa
        cui da dagli dai dal dalla dalle dallo degli dei del dell'a della delle dello di dove
        due e è ed era erano essere fa fino fra gli ha hai hanno ho i il in io la le lei li lo
        loro lui ma mi mia mio molto ne nei nel nella nelle nello no noi non nostra nostro o
        ogni per perché più poi può qual quale quali quando quanto quello questa queste questi
        questo qui se sei si sia siamo sono sopra sotto sta stato su sua sue sugli sui sul sulla
        sulle suo suoi tra tu tua tuo tutti tutto un una uno vi voi""".split()
    ),
    "portuguese": frozenset(
        """a à ao aos as às até cada com como da das de dela dele deles depois do dos e é ela
        elas ele eles em entre era eram essa esse esta está estão este eu foi foram há isso isto
        já la lhe mais mas me mesmo meu minha muito na nas não nem no nos nós nossa nosso num
        numa o os ou outra outro para pela pelas pelo pelos pode podem por porque qual quais
        quando quanto que quem se seja sem ser será seu seus sobre sua suas também te tem têm
        tenho ter todo todos um uma você vocês""".split()
    ),
    "dutch": frozenset(
        """aan al alles als altijd ander anders ben bij daar dan dat de der deze die dit doch
        doen door dus een en er ge geen had heb hebben heeft hem het hier hij hoe hun iemand
        iets ik in is ja je kan kon kunnen maar me meer men met mij mijn moet na naar niet niets
        nog nu of om omdat ons ook op over reeds te tegen toch toen tot u uit uw van veel voor
        waar waarom want waren was wat welke werd wie wij wil worden wordt zal ze zelf zich zij
        zijn zo zonder zou""".split()
    ),
}
