/* Backpropagation by hand in C, behind refimpl.process/1: cc -O2 -o backprop backprop.c -lm; refimpl conform -- ./backprop
 * refimpl writes without spaces and with its keys in a fixed order, so strstr finds what a JSON library would. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
enum { LAYERS = 64, ROOM = 1 << 20 }; static double room[ROOM]; static size_t used; /* every array of one message */
static double *take(size_t n) { if ((used += n) > ROOM) exit(3); return memset(room + used - n, 0, n * sizeof *room); }
static double *tensor(const char *text, const char *name, int number, int *rows, int *cols) {
    char key[40]; snprintf(key, sizeof key, number ? "\"%s%d\":{\"shape\":[" : "\"%s\":{\"shape\":[", name, number);
    char *p = strstr(text, key); if (!p) return NULL;
    for (*rows = strtol(p + strlen(key), &p, 10), *cols = 1; *p == ',';) *cols *= strtol(p + 1, &p, 10);
    int n = *rows * *cols; double *v = take(n); p = strstr(p, "[");
    for (int i = 0; i < n; i++) v[i] = strtod(p + 1, &p);
    return v;
}
static void print(const char *name, int number, int rows, int cols, const double *v) {
    printf("%s\"%s%d\":{\"shape\":[%d", *name == 'b' || number > 1 ? "," : "", name, number, rows);
    printf(cols ? ",%d],\"data\":[" : "],\"data\":[", cols);
    for (int i = 0, n = rows * (cols ? cols : 1); i < n; i++) printf(i ? ",%.17g" : "%.17g", v[i]);
    printf("]}");
}
static double f(char k, double z) { return k == 's' ? 1 / (1 + exp(-z)) : k == 't' ? tanh(z) : k == 'r' && z <= 0 ? 0 : z; }
static double slope(char k, double z) { /* from z, so that a saturated unit keeps its digits */
    double t = k == 's' ? exp(-fabs(z)) : exp(-2 * fabs(z)), d = t / ((1 + t) * (1 + t));
    return k == 's' ? d : k == 't' ? 4 * d : k == 'r' ? z > 0 : 1;
}
static void evaluate(const char *text) {
    double *W[LAYERS], *b[LAYERS], *z[LAYERS], *a[LAYERS + 1], *dW[LAYERS], *db[LAYERS], C = 0;
    int n, depth = 0, in[LAYERS + 1], out, one, unused; char k[LAYERS]; used = 0; a[0] = tensor(text, "x", 0, &n, in);
    for (const char *p = text; depth < LAYERS && (p = strstr(p, "\"activation\":\"")); depth++) k[depth] = *(p += 14);
    double *y = tensor(text, "y", 0, &n, &one), share = strstr(text, "\"reduction\":\"mean\"") ? 1.0 / n : 1;
    for (int l = 0; l < depth; l++) { /* forward: z = a W^T + b, a = f(z) */
        W[l] = tensor(text, "W", l + 1, &out, &in[l]); b[l] = tensor(text, "b", l + 1, &one, &unused); in[l + 1] = out;
        z[l] = take(n * out); a[l + 1] = take(n * out); dW[l] = take(out * in[l]); db[l] = take(out);
        for (int i = 0; i < n * out; i++) {
            for (int j = 0; j < in[l]; j++) z[l][i] += W[l][i % out * in[l] + j] * a[l][i / out * in[l] + j];
            a[l + 1][i] = f(k[l], z[l][i] += b[l] ? b[l][i % out] : 0);
        }
    }
    double *delta = take(n * in[depth]), *back;
    for (int i = 0; i < n * in[depth]; i++) { /* C = 1/2 (s - y)^2, delta = dC/ds f'(z) */
        double r = a[depth][i] - y[i]; C += r * r / 2 * share; delta[i] = r * share * slope(k[depth - 1], z[depth - 1][i]);
    }
    for (int l = depth - 1; l >= 0; l--, delta = back) { /* dW = delta^T a, db = sum of delta, delta = (delta W) f'(z) */
        out = in[l + 1]; back = take(n * in[l]);
        for (int i = 0; i < n * out; i++) for (int j = (db[l][i % out] += delta[i], 0); j < in[l]; j++)
            dW[l][i % out * in[l] + j] += delta[i] * a[l][i / out * in[l] + j], back[i / out * in[l] + j] += delta[i] * W[l][i % out * in[l] + j];
        for (int i = 0; l && i < n * in[l]; i++) back[i] *= slope(k[l - 1], z[l - 1][i]);
    }
    printf("{\"type\":\"answer\",\"id\":%ld,\"loss\":%.17g,\"gradients\":{", strtol(strstr(text, "\"id\":") + 5, NULL, 10), C);
    for (int l = 0; l < depth; l++) { print("W", l + 1, in[l + 1], in[l], dW[l]); if (b[l]) print("b", l + 1, in[l + 1], 0, db[l]); }
    puts("}}");
}
int main(void) {
    char *line = NULL; size_t size = 0;
    for (; getline(&line, &size, stdin) > 0 && !strstr(line, "\"type\":\"bye\""); fflush(stdout))
        if (strstr(line, "\"type\":\"evaluate\"")) evaluate(line);
        else puts("{\"type\":\"hello\",\"format\":\"refimpl.process/1\",\"name\":\"backprop.c\",\"dtypes\":[\"float64\"],\"losses\":[\"squared_error\"],\"activations\":[\"identity\",\"sigmoid\",\"tanh\",\"relu\"]}");
}
