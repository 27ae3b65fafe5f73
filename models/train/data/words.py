# SPDX-License-Identifier: Apache-2.0
"""Word lists of the text tasks, names, stories' heroes and the like."""

NAMES = ("Anna Ben Carla David Emma Felix Grace Henry Ida Jack Kate Leo Maria Nina Oscar Paul Rosa Sam Tom Lucy Max Mia "
         "Noah Olivia Peter Ruby Sara Tim Victor Wendy Alice Bob Charlie Diana Eric Fiona George Hannah Ivan Julia Kevin "
         "Laura Mark Nora Robert Sofia Thomas Zoe Adam Amy Chris Daniel Elena Frank Helen James John Karen Linda Mary "
         "Michael Nick Sarah Simon Steve Susan Alex Jane Lisa Luke Ali Omar Yuki Mei Wei Li Priya Raj").split()
NAMES_ZH = "小明 小红 小华 小丽 小刚 李雷 王芳 张伟 李娜 刘洋 陈静 王明 李华 张丽 赵强 小美 小龙 小雨".split()

COLORS = "red blue green yellow orange purple pink brown black white gray silver gold".split()
COLORS_ZH = "红色 蓝色 绿色 黄色 橙色 紫色 粉色 棕色 黑色 白色 灰色".split()
FRUITS = "apple banana cherry grape lemon mango melon orange peach pear plum kiwi fig lime papaya".split()
ANIMALS = ("cat dog fox bear wolf lion tiger mouse rabbit horse cow pig sheep goat duck goose owl frog snake turtle monkey "
           "elephant giraffe zebra deer camel whale dolphin shark penguin eagle parrot bee ant spider hedgehog squirrel").split()
HEROES = ANIMALS + "robot dragon knight princess pirate wizard king queen farmer sailor boy girl teacher baker ghost fairy".split()
FOODS = "pizza bread cheese rice soup salad cake pasta chocolate honey sushi noodles burger".split()

WORDS = sorted(set(COLORS + FRUITS + ANIMALS + FOODS + (
    "air alarm angel answer arm army art aunt baby back bag ball band bank basket bath beach bed bell belt bench bike bird "
    "blood board boat body bone book bottle bowl box brain branch brick bridge broom brother brush bucket bus butter button "
    "cable cage camera camp candle candy car card castle chain chair chalk child church circle city clock cloud coat code "
    "coffee coin comb computer cook copper corn cotton cousin cream crown cup curtain dance day desk diamond dinner dirt "
    "doctor doll door dream dress drum dust ear earth egg engine eye face family fan farm father feather field finger fire "
    "fish flag floor flour flower foot forest fork friend front fruit game garden gate gift girl glass glove glue grass "
    "ground guitar hair hall hammer hand happy hat head heart heat hello hill hole home hook hope hotel hour house ice idea "
    "iron island jacket jar jeans jelly jewel juice jump jungle kettle key kid king kiss kitchen kite knee knife lake lamp "
    "land laptop leaf leg letter library light line lip list lock love lunch machine magic mail map market mask meat metal "
    "milk mind mirror money month moon morning mother mountain mouth movie music nail name neck needle nest net news night "
    "nose note number ocean oil onion oven page paint pan paper park party path pen pencil people pepper phone photo piano "
    "picture pillow pilot pin pipe planet plant plate pocket poem point pool potato power prince program python queen "
    "question quick quiet radio rain ring river road rock roof room root rope rose salt sand school science sea seat seed "
    "shell ship shirt shoe shop silk sister skin sky sleep smile smoke snow soap sock sofa soldier song space speed spoon "
    "spring square stable stage star station stone storm story strawberry street string student sugar summer sun sweet "
    "swing table tail tea teacher tent test text thing ticket time toast tomato tongue tooth tower town toy train tree "
    "truck trust tub umbrella uncle vase village violin voice wagon wall watch water wave wheel wind window wine wing "
    "winter wire wolf woman wood word work world worm year yellow zebra zipper zoo banana mississippi").split()))

ZH_WORDS = ("苹果 香蕉 天空 大海 月亮 太阳 星星 学校 老师 学生 朋友 音乐 电脑 手机 汽车 飞机 火车 桌子 椅子 窗户 花园 "
            "森林 山水 河流 小鸟 老虎 狮子 大象 猫咪 小狗 牛奶 面包 米饭 茶叶 咖啡 雨伞 书本 铅笔 故事 春天 夏天 秋天 "
            "冬天 早上 晚上 中国 世界 城市 图书馆 自行车 巧克力 计算机 红绿灯 好朋友 北京 上海").split()

OPPOSITES = {a: b for pair in (
    "hot cold|big small|up down|left right|day night|black white|open closed|fast slow|old young|happy sad|rich poor|hard soft|"
    "long short|high low|full empty|wet dry|light dark|good bad|early late|near far|strong weak|loud quiet|clean dirty|"
    "in out|yes no|true false|love hate|begin end|win lose|buy sell|push pull|tall short|thick thin|north south|east west|"
    "first last|always never|above below|inside outside|easy difficult|summer winter|alive dead|brave afraid|cheap expensive"
).split("|") for a, b in [pair.split()]}
OPPOSITES_ZH = dict(p.split() for p in (
    "大 小|高 低|长 短|多 少|快 慢|冷 热|黑 白|早 晚|新 旧|前 后|左 右|上 下|里 外|好 坏|胖 瘦|轻 重|远 近|开 关|哭 笑|买 卖").split("|"))

# English: (Chinese, French, Spanish, German)
TRANSLATIONS = {
    "hello": ("你好", "bonjour", "hola", "hallo"), "goodbye": ("再见", "au revoir", "adiós", "auf Wiedersehen"),
    "thank you": ("谢谢", "merci", "gracias", "danke"), "yes": ("是", "oui", "sí", "ja"), "no": ("不", "non", "no", "nein"),
    "water": ("水", "eau", "agua", "Wasser"), "bread": ("面包", "pain", "pan", "Brot"), "cat": ("猫", "chat", "gato", "Katze"),
    "dog": ("狗", "chien", "perro", "Hund"), "house": ("房子", "maison", "casa", "Haus"), "book": ("书", "livre", "libro", "Buch"),
    "sun": ("太阳", "soleil", "sol", "Sonne"), "moon": ("月亮", "lune", "luna", "Mond"), "love": ("爱", "amour", "amor", "Liebe"),
    "friend": ("朋友", "ami", "amigo", "Freund"), "red": ("红色", "rouge", "rojo", "rot"), "blue": ("蓝色", "bleu", "azul", "blau"),
    "green": ("绿色", "vert", "verde", "grün"), "one": ("一", "un", "uno", "eins"), "two": ("二", "deux", "dos", "zwei"),
    "apple": ("苹果", "pomme", "manzana", "Apfel"), "milk": ("牛奶", "lait", "leche", "Milch"),
    "tree": ("树", "arbre", "árbol", "Baum"), "day": ("天", "jour", "día", "Tag"), "night": ("夜晚", "nuit", "noche", "Nacht"),
    "good morning": ("早上好", "bonjour", "buenos días", "guten Morgen"), "fish": ("鱼", "poisson", "pez", "Fisch"),
    "car": ("汽车", "voiture", "coche", "Auto"), "school": ("学校", "école", "escuela", "Schule")}
LANGUAGES = ("Chinese", "French", "Spanish", "German")

NUMBER_WORDS = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
                "seventeen eighteen nineteen twenty").split()
TENS = "zero ten twenty thirty forty fifty sixty seventy eighty ninety".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
DAYS_ZH = "星期一 星期二 星期三 星期四 星期五 星期六 星期日".split()


def number_word(n: int) -> str:
    """0..99 in English words."""
    if n <= 20:
        return NUMBER_WORDS[n]
    return TENS[n // 10] + ("-" + NUMBER_WORDS[n % 10] if n % 10 else "")
