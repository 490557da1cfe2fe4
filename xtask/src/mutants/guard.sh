# Removes the worktree $1 when its input ends, which it does with xtask, however that ends.
# A line of the input is the process group that runs from now on; an empty one, that none does.
trap '' HUP INT TERM
group=
while read -r line; do group=$line; done
[ -z "$group" ] || kill -s KILL -- "-$group"
git worktree remove --force "$1"
