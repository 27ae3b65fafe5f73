# SPDX-License-Identifier: Apache-2.0
"""Countries with capital, continent, Chinese names; currencies and languages of some of them."""

# country: (capital, continent, Chinese country or "", Chinese capital or "")
COUNTRIES: dict[str, tuple[str, str, str, str]] = {
    "France": ("Paris", "Europe", "法国", "巴黎"), "Germany": ("Berlin", "Europe", "德国", "柏林"),
    "Italy": ("Rome", "Europe", "意大利", "罗马"), "Spain": ("Madrid", "Europe", "西班牙", "马德里"),
    "Portugal": ("Lisbon", "Europe", "葡萄牙", "里斯本"), "Austria": ("Vienna", "Europe", "奥地利", "维也纳"),
    "Switzerland": ("Bern", "Europe", "瑞士", "伯尔尼"), "Belgium": ("Brussels", "Europe", "比利时", "布鲁塞尔"),
    "the Netherlands": ("Amsterdam", "Europe", "荷兰", "阿姆斯特丹"), "Denmark": ("Copenhagen", "Europe", "丹麦", "哥本哈根"),
    "Sweden": ("Stockholm", "Europe", "瑞典", "斯德哥尔摩"), "Norway": ("Oslo", "Europe", "挪威", "奥斯陆"),
    "Finland": ("Helsinki", "Europe", "芬兰", "赫尔辛基"), "Iceland": ("Reykjavik", "Europe", "冰岛", "雷克雅未克"),
    "Ireland": ("Dublin", "Europe", "爱尔兰", "都柏林"), "the United Kingdom": ("London", "Europe", "英国", "伦敦"),
    "Poland": ("Warsaw", "Europe", "波兰", "华沙"), "the Czech Republic": ("Prague", "Europe", "捷克", "布拉格"),
    "Slovakia": ("Bratislava", "Europe", "", ""), "Hungary": ("Budapest", "Europe", "匈牙利", "布达佩斯"),
    "Romania": ("Bucharest", "Europe", "罗马尼亚", "布加勒斯特"), "Bulgaria": ("Sofia", "Europe", "", ""),
    "Greece": ("Athens", "Europe", "希腊", "雅典"), "Serbia": ("Belgrade", "Europe", "", ""),
    "Croatia": ("Zagreb", "Europe", "", ""), "Slovenia": ("Ljubljana", "Europe", "", ""),
    "Albania": ("Tirana", "Europe", "", ""), "Ukraine": ("Kyiv", "Europe", "乌克兰", "基辅"),
    "Russia": ("Moscow", "Europe", "俄罗斯", "莫斯科"), "Estonia": ("Tallinn", "Europe", "", ""),
    "Latvia": ("Riga", "Europe", "", ""), "Lithuania": ("Vilnius", "Europe", "", ""),
    "Luxembourg": ("Luxembourg", "Europe", "", ""), "Malta": ("Valletta", "Europe", "", ""),
    "Turkey": ("Ankara", "Asia", "土耳其", "安卡拉"), "China": ("Beijing", "Asia", "中国", "北京"),
    "Japan": ("Tokyo", "Asia", "日本", "东京"), "South Korea": ("Seoul", "Asia", "韩国", "首尔"),
    "North Korea": ("Pyongyang", "Asia", "朝鲜", "平壤"), "Mongolia": ("Ulaanbaatar", "Asia", "蒙古", "乌兰巴托"),
    "India": ("New Delhi", "Asia", "印度", "新德里"), "Pakistan": ("Islamabad", "Asia", "巴基斯坦", "伊斯兰堡"),
    "Bangladesh": ("Dhaka", "Asia", "", ""), "Nepal": ("Kathmandu", "Asia", "尼泊尔", "加德满都"),
    "Thailand": ("Bangkok", "Asia", "泰国", "曼谷"), "Vietnam": ("Hanoi", "Asia", "越南", "河内"),
    "Cambodia": ("Phnom Penh", "Asia", "", ""), "Malaysia": ("Kuala Lumpur", "Asia", "马来西亚", "吉隆坡"),
    "Singapore": ("Singapore", "Asia", "新加坡", "新加坡"), "Indonesia": ("Jakarta", "Asia", "印度尼西亚", "雅加达"),
    "the Philippines": ("Manila", "Asia", "菲律宾", "马尼拉"), "Iran": ("Tehran", "Asia", "伊朗", "德黑兰"),
    "Iraq": ("Baghdad", "Asia", "伊拉克", "巴格达"), "Saudi Arabia": ("Riyadh", "Asia", "沙特阿拉伯", "利雅得"),
    "Israel": ("Jerusalem", "Asia", "", ""), "Jordan": ("Amman", "Asia", "", ""),
    "Lebanon": ("Beirut", "Asia", "", ""), "Syria": ("Damascus", "Asia", "", ""),
    "Qatar": ("Doha", "Asia", "", ""), "Kazakhstan": ("Astana", "Asia", "", ""),
    "Egypt": ("Cairo", "Africa", "埃及", "开罗"), "Morocco": ("Rabat", "Africa", "摩洛哥", "拉巴特"),
    "Algeria": ("Algiers", "Africa", "", ""), "Tunisia": ("Tunis", "Africa", "", ""),
    "Libya": ("Tripoli", "Africa", "", ""), "Sudan": ("Khartoum", "Africa", "", ""),
    "Ethiopia": ("Addis Ababa", "Africa", "", ""), "Kenya": ("Nairobi", "Africa", "肯尼亚", "内罗毕"),
    "Uganda": ("Kampala", "Africa", "", ""), "Nigeria": ("Abuja", "Africa", "尼日利亚", "阿布贾"),
    "Ghana": ("Accra", "Africa", "", ""), "Senegal": ("Dakar", "Africa", "", ""),
    "South Africa": ("Pretoria", "Africa", "南非", "比勒陀利亚"), "Zimbabwe": ("Harare", "Africa", "", ""),
    "Zambia": ("Lusaka", "Africa", "", ""), "Angola": ("Luanda", "Africa", "", ""),
    "the United States": ("Washington", "North America", "美国", "华盛顿"),
    "Canada": ("Ottawa", "North America", "加拿大", "渥太华"), "Mexico": ("Mexico City", "North America", "墨西哥", "墨西哥城"),
    "Cuba": ("Havana", "North America", "古巴", "哈瓦那"), "Jamaica": ("Kingston", "North America", "", ""),
    "Panama": ("Panama City", "North America", "", ""), "Brazil": ("Brasilia", "South America", "巴西", "巴西利亚"),
    "Argentina": ("Buenos Aires", "South America", "阿根廷", "布宜诺斯艾利斯"), "Chile": ("Santiago", "South America", "智利", "圣地亚哥"),
    "Peru": ("Lima", "South America", "秘鲁", "利马"), "Colombia": ("Bogota", "South America", "哥伦比亚", "波哥大"),
    "Venezuela": ("Caracas", "South America", "", ""), "Ecuador": ("Quito", "South America", "", ""),
    "Uruguay": ("Montevideo", "South America", "", ""), "Paraguay": ("Asuncion", "South America", "", ""),
    "Australia": ("Canberra", "Oceania", "澳大利亚", "堪培拉"), "New Zealand": ("Wellington", "Oceania", "新西兰", "惠灵顿"),
}

ALIASES = {"the United States": ("the USA", "USA", "the US", "America", "United States"),
           "the United Kingdom": ("the UK", "UK", "England", "Great Britain", "Britain"),
           "the Netherlands": ("Holland", "Netherlands"), "the Philippines": ("Philippines",),
           "the Czech Republic": ("Czechia", "Czech Republic"), "South Korea": ("Korea",)}

CURRENCY = {"France": "euro", "Germany": "euro", "Italy": "euro", "Spain": "euro", "Greece": "euro", "Ireland": "euro",
            "Japan": "yen", "China": "yuan", "India": "rupee", "Russia": "ruble", "Switzerland": "franc",
            "the United Kingdom": "pound", "the United States": "dollar", "Canada": "dollar", "Australia": "dollar",
            "Sweden": "krona", "Norway": "krone", "Denmark": "krone", "Poland": "zloty", "South Korea": "won",
            "Brazil": "real", "Mexico": "peso", "Turkey": "lira", "Thailand": "baht", "South Africa": "rand"}

LANGUAGE = {"France": "French", "Germany": "German", "Austria": "German", "Italy": "Italian", "Spain": "Spanish",
            "Portugal": "Portuguese", "Brazil": "Portuguese", "Mexico": "Spanish", "Argentina": "Spanish",
            "Japan": "Japanese", "China": "Chinese", "Russia": "Russian", "Greece": "Greek", "Turkey": "Turkish",
            "Egypt": "Arabic", "Sweden": "Swedish", "Poland": "Polish", "Australia": "English",
            "the United Kingdom": "English", "the United States": "English", "Vietnam": "Vietnamese", "Thailand": "Thai"}

# Places that have no known capital here: invented, fictional, or not a country.
NO_COUNTRY = ("Atlantis", "Narnia", "Wakanda", "Mordor", "Gondor", "Hogwarts", "Neverland", "Utopia", "Wonderland",
              "El Dorado", "Middle Earth", "Freedonia", "Genovia", "Latveria", "Oz", "Lilliput", "the moon", "Mars",
              "the sun", "my house", "Westeros", "Elbonia", "Ruritania", "Tatooine", "Asgard", "Gotham", "Zamunda",
              "Texas", "California", "Bavaria", "Africa", "Europe", "Asia", "London", "Paris", "Hawaii", "a banana", "the ocean", "Springfield",
              "Hyrule", "Camelot", "Shangri-La", "Panem", "Pandora", "Florin", "Azeroth", "Xanadu", "Bikini Bottom")
NO_COUNTRY_ZH = ("亚特兰蒂斯", "纳尼亚", "瓦坎达", "月球", "火星", "乌托邦", "中土世界", "太阳", "我家", "魔法国")

# Cities for tools and small talk that are not all capitals.
CITIES = tuple(c[0] for c in COUNTRIES.values() if " " not in c[0]) + (
    "New York", "San Francisco", "Los Angeles", "Chicago", "Boston", "Seattle", "Munich", "Hamburg", "Milan", "Barcelona",
    "Shanghai", "Shenzhen", "Mumbai", "Sydney", "Toronto", "Zurich", "Geneva", "Lyon", "Osaka", "Hong Kong", "Dubai")
CITIES_ZH = ("北京", "上海", "广州", "深圳", "杭州", "南京", "成都", "武汉", "西安", "天津", "重庆", "苏州", "东京", "巴黎",
             "伦敦", "柏林", "纽约", "首尔", "香港", "台北", "青岛", "厦门")
