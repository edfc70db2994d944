"""What is kept of a network over many images, in parts that merge exactly.

Every part has `update` (the images of one batch, in place), `merge` (the same of other images, into a new one) and
`compute` (what is read from it), as torchmetrics calls them; `settle` gives a part that was updated the one form that
equal parts have, in which it is merged, written and read.

Each image is reduced first, by itself; after that nothing is done that is not associative and commutative to the bit:
whole numbers are added, minima and maxima taken, the best entries of two lists kept. So any split of a data set into
chunks, any order and any number of workers give the same result, and equal results are equal bytes. Sums are whole
numbers of any length (`exact`): count, mean and M2 would have to be merged in the order of the chunks, so that whoever
merges has to hold every result that is early (tens of MB each), and what was done before a kill would have to be the
first chunks without a gap; and mean and deviation would depend on where the chunks begin.
"""
