"""How people ask: pages, one file per noun, server-rendered, useful without scripts.

A page is a plain function on an APIRouter, listed in `pages.ROUTERS`:

    router = APIRouter(include_in_schema=False)

    @router.get("/fleet")
    def fleet(visit: Annotated[Visit, reading(Scope.SYSTEM_READ)]) -> Response:
        found = tenants.listed(visit.services.store)
        return visit.show("fleet/list.html", tenants=found)

    @router.post("/fleet/{name}/stop")
    def stop(name: str, visit: Annotated[Visit, acting(Scope.TENANTS_OPERATE)]) -> Response:
        visit.services.tenants.stop(visit.tenant(name).name, actor=visit.who.actor)
        return visit.go("/fleet", f"{name} is stopped.")

`reading` and `acting` require the scope; `acting` also checks the form's CSRF token (`{{ m.csrf() }}` in every
form, or the header htmx sends). `visit.tenant(name)` refuses foreign tenants. Errors of the error tree may simply be
raised: the error page shows cause, effect, next step and reference. Results are told by `visit.go(path, text)`.
Templates extend `base.html` (or `layouts/workspace.html` for one tenant's pages), import `parts/marks.html` as `m`
`with context`, and show foreign text through `| visible` inside `<bdi>` (`m.foreign(text)` does both). No inline
scripts or styles: the content security policy forbids them. Put a page into the main navigation in `navigation.py`.
"""
