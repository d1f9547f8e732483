#!/usr/bin/env python3
"""Writes orders.jsonl beside this script: the food orders that examples/food_delivery takes in.

Deterministic: the same seed gives the same bytes. Run it only to change the data:

    python3 examples/data/make_orders.py

Two kinds of items are there to make trouble. A souffle collapses the first times a chef tries it (a failure that
passes). An item with an impossible quantity or a station that no kitchen has cannot be cooked at all (poison).
"""

import json
import random
from datetime import datetime, timedelta, timezone
from pathlib import Path

SEED = 20_260_117
ORDERS = 640
CUSTOMERS = 170
START = datetime(2026, 1, 16, 16, 30, tzinfo=timezone(timedelta(hours=1)))

FIRST = """Ana Zoë Łukasz Søren Nguyễn Mei Aylin José Björk Νίκος Oluwaseun Priya Grace Tomáš Chloé Yusuf Ingrid Mateo
Sinéad Dmitri Hana Emre Fatima Jürgen Noor Kofi Beatriz Ilse Þóra Ramón Alžběta Wei Siobhán Marek Lucía Anaïs Óscar
Ewa Şebnem Kenji""".split()
LAST = """García Müller Øvergaard Kowalczyk Trần 王 Yılmaz D'Angelo Guðmundsdóttir Παπαδοπούλου Adébáyò Sharma Hopper
Dvořák Lefèvre al-Khatib Håkansson Núñez Ó'Briain Иванова 佐藤 Çelik Benali Schäfer Vermeer Mensah Gonçalves
Jónsson Wójcik Çağlar""".split()
STREETS = [
    "Mühlenweg", "Rue de l'Étang", "Calle del Molino", "Þórsgata", "Kungsgatan", "ul. Młyńska", "Via dell'Acqua",
    "Vodní", "Atatürk Bulvarı", "Mill Lane", "Οδός Νερόμυλου", "Rua do Açude", "Molenstraat", "水車通り", "Kværnvej",
]

# restaurant -> [(sku, name, price in cents, station)]
MENUS = {
    ("r-01", "La Vieille Meule"): [
        ("souffle-gruyere", "Soufflé au gruyère", 1450, "oven"),
        ("souffle-choc", "Soufflé au chocolat", 1150, "pastry"),
        ("onion-soup", "Soupe à l'oignon", 890, "stove"),
        ("steak-frites", "Steak frites", 2190, "grill"),
        ("creme-brulee", "Crème brûlée", 780, "pastry"),
        ("salad-nicoise", "Salade niçoise", 1320, "cold"),
    ],
    ("r-02", "Phở Bến Thành"): [
        ("pho-bo", "Phở bò tái", 1290, "stove"),
        ("pho-chay", "Phở chay", 1190, "stove"),
        ("goi-cuon", "Gỏi cuốn (2)", 690, "cold"),
        ("bun-cha", "Bún chả Hà Nội", 1390, "grill"),
        ("ca-phe", "Cà phê sữa đá", 450, "bar"),
    ],
    ("r-03", "Ocakbaşı Değirmen"): [
        ("adana", "Adana kebap", 1590, "grill"),
        ("lahmacun", "Lahmacun", 650, "oven"),
        ("mercimek", "Mercimek çorbası", 580, "stove"),
        ("coban", "Çoban salatası", 720, "cold"),
        ("ayran", "Ayran", 250, "bar"),
        ("kunefe", "Künefe", 890, "pastry"),
    ],
    ("r-04", "Trattoria del Mulino"): [
        ("margherita", "Pizza Margherita", 1090, "oven"),
        ("diavola", "Pizza alla diavola", 1290, "oven"),
        ("gnocchi", "Gnocchi al pesto", 1350, "stove"),
        ("tiramisu", "Tiramisù", 690, "pastry"),
        ("limonata", "Limonata", 390, "bar"),
    ],
    ("r-05", "水車 Suisha"): [
        ("ramen-miso", "味噌ラーメン", 1490, "stove"),
        ("gyoza", "餃子 (6)", 690, "grill"),
        ("sashimi", "刺身盛り合わせ", 2450, "cold"),
        ("souffle-pancake", "スフレパンケーキ", 1180, "pastry"),
        ("matcha", "抹茶", 420, "bar"),
    ],
    ("r-06", "The Millpond Grill"): [
        ("burger", "Cheeseburger", 1250, "grill"),
        ("veggie-burger", "Halloumi burger", 1190, "grill"),
        ("fries", "Fries", 390, "fryer"),
        ("onion-rings", "Onion rings", 450, "fryer"),
        ("slaw", "Coleslaw", 320, "cold"),
        ("shake", "Vanilla shake", 550, "bar"),
    ],
}
PAYMENTS = ["card", "card", "card", "paypal", "cash", "voucher"]
NOTES = [
    "", "", "", "", "", "Ring twice, the bell is moody.", "Bitte nicht klingeln, das Baby schläft 👶",
    "Extra spicy 🌶️🌶️", "sin cebolla, por favor", "Leave it with Mrs. Ólafsdóttir on the 2nd floor",
    "Sonnez à « Lefèvre »", "Allergic to peanuts!", 'Say "quack" at the door 🦆', "辛さ控えめでお願いします", "no\tcutlery\nno napkins",
]
POISON = [
    {"quantity": 0}, {"quantity": -2}, {"quantity": 4000}, {"station": "teleporter"}, {"station": ""},
    {"quantity": 1_000_000_000}, {"station": "grïll"},
]


def customers(rng):
    for number in range(1, CUSTOMERS + 1):
        yield {
            "id": f"c-{number:04}",
            "name": f"{rng.choice(FIRST)} {rng.choice(LAST)}",
            "address": f"{rng.choice(STREETS)} {rng.randint(1, 120)}{rng.choice(['', '', '', 'a', 'b', '/3'])}",
        }


def items(rng, menu):
    for sku, name, price, station in rng.sample(menu, k=min(len(menu), rng.choice([1, 2, 2, 3, 3, 4, 5]))):
        yield {
            "sku": sku,
            "name": name,
            "quantity": rng.choice([1, 1, 1, 1, 2, 2, 3, 4]),
            "price_cents": price,
            "station": station,
        }


def orders(rng):
    people = list(customers(rng))
    # A few customers order often, most seldom.
    weights = [1 + 12 / (1 + place) for place in range(len(people))]
    placed_at = START
    poisoned = set(rng.sample(range(ORDERS), k=12))
    for number in range(ORDERS):
        placed_at += timedelta(seconds=rng.randint(1, 70))
        (restaurant_id, restaurant), menu = rng.choice(sorted(MENUS.items()))
        basket = list(items(rng, menu))
        if number in poisoned:
            # Never a souffle: an item makes one kind of trouble only.
            steady = [item for item in basket if not item["sku"].startswith("souffle")]
            if not steady:
                sku, name, price, station = next(dish for dish in menu if not dish[0].startswith("souffle"))
                steady = [{"sku": sku, "name": name, "quantity": 1, "price_cents": price, "station": station}]
                basket += steady
            rng.choice(steady).update(POISON[len([n for n in poisoned if n < number]) % len(POISON)])
        fee = rng.choice([0, 190, 290, 350])
        tip = rng.choice([0, 0, 100, 150, 200, 500])
        yield {
            "order_id": f"ord-{number + 1:05}",
            "placed_at": placed_at.isoformat(),
            "customer": rng.choices(people, weights)[0],
            "restaurant": {"id": restaurant_id, "name": restaurant},
            "items": basket,
            "delivery_fee_cents": fee,
            "tip_cents": tip,
            "total_cents": sum(item["quantity"] * item["price_cents"] for item in basket) + fee + tip,
            "payment": rng.choice(PAYMENTS),
            "notes": rng.choice(NOTES),
        }


def main():
    path = Path(__file__).with_name("orders.jsonl")
    with path.open("w", encoding="utf-8", newline="\n") as out:
        for order in orders(random.Random(SEED)):
            out.write(json.dumps(order, ensure_ascii=False) + "\n")
    print(f"{path}: {ORDERS} orders")


if __name__ == "__main__":
    main()
