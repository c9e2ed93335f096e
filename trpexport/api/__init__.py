"""The library as people try it first: a function for each thing that the command line does.

::

    import trpexport as tx

    small = tx.decompose(model, tx.ByCriterion("spatial", "energy:0.9"), example=x)
    small = tx.decompose("resnet20.th", tx.ByBudget(macs=0.5), images=x)
    tx.verify(small)
    tx.export(small, "out")
    tx.bench(["out"])
"""
