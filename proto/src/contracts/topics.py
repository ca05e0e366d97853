"""Names of the topics, and which topic carries an event type. proto/topics/catalogue.yaml says the rest."""

STOREFRONT_BROWSE = "storefront.browse.v1"
STOREFRONT_CART = "storefront.cart.v1"
COMMERCE_ORDER = "commerce.order.v1"
COMMERCE_CUSTOMER = "commerce.customer.v1"
SEGMENT_MEMBERSHIP = "segment.membership.v1"
TARGETING_CHANGED = "targeting.changed.v1"

INPUT = {
    STOREFRONT_BROWSE: ("product_view", "category_view", "page_view", "search", "custom"),
    STOREFRONT_CART: ("cart_update", "add_to_cart", "remove_from_cart", "wishlist_update", "checkout_started"),
    COMMERCE_ORDER: ("order_placed", "order_status_changed", "refund_issued"),
    COMMERCE_CUSTOMER: ("identify", "login", "logout", "group_assigned", "consent_changed"),
}
TOPIC_OF = {kind: topic for topic, kinds in INPUT.items() for kind in kinds}
# (partitions, days of retention): personal data in Kafka ends within a month.
SHAPES = {
    STOREFRONT_BROWSE: (4, 14),
    STOREFRONT_CART: (4, 14),
    COMMERCE_ORDER: (4, 28),
    COMMERCE_CUSTOMER: (4, 28),
    **{f"{topic}.dlq": (1, 28) for topic in INPUT},
    SEGMENT_MEMBERSHIP: (4, 14),
    TARGETING_CHANGED: (1, 14),
}
BROWSER_TYPES = frozenset(INPUT[STOREFRONT_BROWSE] + INPUT[STOREFRONT_CART])
