"""What differs between a sandbox's rows and its base snapshot, and everything pure that follows from it.

`shape` (tables), `rows` (cells and row changes), `changeset` (the whole, its order and digest), `json_form` (its
published form), `provisional` (keys production must assign), `summary` and `risks` (what a reviewer should see
first), `carry` (moving unproposed rows to a newer snapshot), `view` and `rendering` (for pages and terminals).
"""
